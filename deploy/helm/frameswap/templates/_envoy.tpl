{{/*
Envoy's configuration: a listener a pool. The compose files' configurations in deploy/envoy are
renderings of this one.
*/}}
{{- define "frameswap.envoy" -}}
{{- $root := . -}}
{{- $edge := .Values.edge -}}
{{- $bytes := mul (int $edge.maxRequestMiB) 1048576 -}}
node: { id: edge, cluster: {{ include "frameswap.name" . }} }
admin:
  address:
    socket_address: { address: 127.0.0.1, port_value: 9901 }
overload_manager:
  resource_monitors:
    - name: envoy.resource_monitors.fixed_heap
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig
        max_heap_size_bytes: {{ div (mul (int $edge.memoryMiB) 1048576 9) 10 }}
    - name: envoy.resource_monitors.global_downstream_max_connections
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig
        max_active_downstream_connections: 1000
  actions:
    - name: envoy.overload_actions.stop_accepting_requests
      triggers:
        - name: envoy.resource_monitors.fixed_heap
          threshold: { value: 0.95 }
static_resources:
  listeners:
    {{- range $index, $name := keys .Values.pools | sortAlpha }}
    - name: {{ $name }}
      address:
        socket_address: { address: 0.0.0.0, port_value: {{ add 10000 $index }} }
      # A request is kept whole until it is answered, so that it can be sent again elsewhere.
      per_connection_buffer_limit_bytes: {{ $bytes }}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: {{ $name }}
                codec_type: HTTP2
                use_remote_address: true
                forward_client_cert_details: SANITIZE
                normalize_path: true
                merge_slashes: true
                path_with_escaped_slashes_action: REJECT_REQUEST
                request_headers_timeout: 5s
                stream_idle_timeout: {{ $edge.timeoutSeconds }}s
                common_http_protocol_options:
                  headers_with_underscores_action: REJECT_REQUEST
                http2_protocol_options:
                  max_concurrent_streams: 256
                  initial_stream_window_size: 4194304
                  initial_connection_window_size: 33554432
                access_log:
                  - name: envoy.access_loggers.stdout
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
                      log_format:
                        json_format:
                          at: "%START_TIME%"
                          pool: {{ $name }}
                          method: "%REQ(:PATH)%"
                          caller: "%DYNAMIC_METADATA(frameswap:caller)%"
                          peer: "%DOWNSTREAM_PEER_SUBJECT%"
                          from: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
                          status: "%GRPC_STATUS%"
                          http: "%RESPONSE_CODE%"
                          why: "%RESPONSE_FLAGS%"
                          server: "%UPSTREAM_HOST%"
                          attempts: "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"
                          received: "%BYTES_RECEIVED%"
                          sent: "%BYTES_SENT%"
                          ms: "%DURATION%"
                http_filters:
                  {{- if $edge.tokensSecret }}
                  # Who says a known token gets a name; the next filter lets only named callers in,
                  # so that an error in this one closes the door.
                  - name: envoy.filters.http.lua
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
                      default_source_code:
                        inline_string: |
                          local callers = {}
                          for line in io.lines("/etc/frameswap/tokens/tokens") do
                            local name, token = line:match("^(%S+)%s+(%S+)%s*$")
                            if name then callers[token] = name end
                          end
                          function envoy_on_request(handle)
                            local given = handle:headers():get("authorization") or ""
                            handle:headers():remove("authorization")
                            local caller = callers[given:match("^[Bb]earer (%S+)$") or ""]
                            if caller == nil then
                              handle:respond({[":status"] = "401"}, "a known bearer token is needed")
                            else
                              handle:streamInfo():dynamicMetadata():set("frameswap", "caller", caller)
                            end
                          end
                  - name: envoy.filters.http.rbac
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
                      rules:
                        action: ALLOW
                        policies:
                          named:
                            permissions: [{ any: true }]
                            principals:
                              - metadata:
                                  filter: frameswap
                                  path: [{ key: caller }]
                                  value: { present_match: true }
                  {{- end }}
                  - name: envoy.filters.http.local_ratelimit
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
                      stat_prefix: {{ $name }}
                      token_bucket:
                        max_tokens: {{ $edge.requestsPerSecond }}
                        tokens_per_fill: {{ $edge.requestsPerSecond }}
                        fill_interval: 1s
                      filter_enabled: { default_value: { numerator: 100 } }
                      filter_enforced: { default_value: { numerator: 100 } }
                  - name: envoy.filters.http.buffer
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer
                      max_request_bytes: {{ $bytes }}
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
                route_config:
                  name: {{ $name }}
                  virtual_hosts:
                    - name: {{ $name }}
                      domains: ["*"]
                      routes:
                        # Inference, health, metadata: nothing else of Triton's is reached from here.
                        {{- $pool := include "frameswap.pool" (dict "root" $root "name" $name) | fromYaml }}
                        {{- $methods := list "ModelInfer" "ServerLive" "ServerReady" "ModelReady" "ServerMetadata" "ModelMetadata" "ModelConfig" }}
                        {{- if has "statistics" $pool.open }}{{ $methods = append $methods "ModelStatistics" }}{{ end }}
                        {{- range $methods }}
                        - match: { path: /inference.GRPCInferenceService/{{ . }} }
                          route:
                            cluster: {{ $name }}
                            timeout: {{ $edge.timeoutSeconds }}s
                            retry_policy:
                              # A swap changes nothing on a server: it may be asked for again.
                              retry_on: unavailable,cancelled,connect-failure,refused-stream,reset
                              num_retries: 3
                              retry_back_off: { base_interval: 0.05s, max_interval: 1s }
                              retry_host_predicate:
                                - name: envoy.retry_host_predicates.previous_hosts
                                  typed_config:
                                    "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
                              host_selection_retry_max_attempts: 5
                        {{- end }}
                        - match: { path: /grpc.health.v1.Health/Check }
                          route:
                            cluster: {{ $name }}
                            timeout: 5s
                        - match: { prefix: / }
                          direct_response: { status: 403 }
          {{- if $edge.tls.secretName }}
          transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              require_client_certificate: {{ $edge.tls.mutual }}
              common_tls_context:
                alpn_protocols: [h2]
                tls_params: { tls_minimum_protocol_version: TLSv1_2 }
                # By path: a renewed certificate is taken without a restart.
                tls_certificate_sds_secret_configs:
                  - name: edge
                    sds_config:
                      resource_api_version: V3
                      path_config_source: { path: /etc/envoy/certificates.yaml }
                {{- if $edge.tls.mutual }}
                validation_context_sds_secret_config:
                  name: callers
                  sds_config:
                    resource_api_version: V3
                    path_config_source: { path: /etc/envoy/callers.yaml }
                {{- end }}
          {{- end }}
    {{- end }}
    - name: keepers
      address:
        socket_address: { address: 0.0.0.0, port_value: 9902 }
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: keepers
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
                route_config:
                  name: keepers
                  virtual_hosts:
                    - name: keepers
                      domains: ["*"]
                      routes:
                        - match: { path: /ready }
                          route: { cluster: admin }
                        - match: { path: /stats/prometheus }
                          route: { cluster: admin }
  clusters:
    - name: admin
      type: STATIC
      load_assignment:
        cluster_name: admin
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    socket_address: { address: 127.0.0.1, port_value: 9901 }
    {{- range $name := keys .Values.pools | sortAlpha }}
    - name: {{ $name }}
      type: STRICT_DNS
      dns_lookup_family: V4_PREFERRED
      dns_refresh_rate: 2s
      # A server that left the name is sent nothing more, whatever its health says.
      ignore_health_on_host_removal: true
      lb_policy: LEAST_REQUEST
      connect_timeout: 2s
      per_connection_buffer_limit_bytes: {{ $bytes }}
      common_lb_config:
        # With no server in health the answer is UNAVAILABLE, not a guess.
        healthy_panic_threshold: { value: 0 }
      circuit_breakers:
        thresholds:
          - max_connections: 256
            max_pending_requests: {{ $edge.maxRequests }}
            max_requests: {{ $edge.maxRequests }}
            retry_budget:
              budget_percent: { value: 50 }
              min_retry_concurrency: {{ $edge.maxRequests }}
      outlier_detection:
        consecutive_gateway_failure: 3
        interval: 1s
        base_ejection_time: 5s
        max_ejection_percent: 50
      health_checks:
        - timeout: 2s
          interval: 1s
          no_traffic_interval: 1s
          unhealthy_threshold: 1
          healthy_threshold: 1
          http_health_check: { path: /v2/health/ready }
          {{- if $root.Values.tls.secretName }}
          transport_socket_match_criteria: { health: true }
          {{- end }}
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config:
            http2_protocol_options:
              initial_stream_window_size: 4194304
              initial_connection_window_size: 33554432
              connection_keepalive: { interval: 30s, timeout: 10s }
      {{- if $root.Values.tls.secretName }}
      transport_socket_matches:
        - name: health
          match: { health: true }
          transport_socket:
            name: envoy.transport_sockets.raw_buffer
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          sni: {{ $root.Values.tls.serverName }}
          common_tls_context:
            alpn_protocols: [h2]
            {{- if $root.Values.tls.mutual }}
            tls_certificates:
              - certificate_chain: { filename: /etc/frameswap/servers/tls.crt }
                private_key: { filename: /etc/frameswap/servers/tls.key }
            {{- end }}
            validation_context:
              trusted_ca: { filename: /etc/frameswap/servers/ca.crt }
              match_typed_subject_alt_names:
                - san_type: DNS
                  matcher: { exact: {{ $root.Values.tls.serverName }} }
      {{- end }}
      load_assignment:
        cluster_name: {{ $name }}
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    socket_address: { address: {{ include "frameswap.name" $root }}-{{ $name }}, port_value: 8001 }
                  health_check_config: { port_value: 8000 }
    {{- end }}
{{- end }}

{{- define "frameswap.envoyCertificates" -}}
resources:
  - "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
    name: edge
    tls_certificate:
      watched_directory: { path: /etc/frameswap/edge }
      certificate_chain: { filename: /etc/frameswap/edge/tls.crt }
      private_key: { filename: /etc/frameswap/edge/tls.key }
{{- end }}

{{- define "frameswap.envoyCallers" -}}
resources:
  - "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
    name: callers
    validation_context:
      watched_directory: { path: /etc/frameswap/edge }
      trusted_ca: { filename: /etc/frameswap/edge/ca.crt }
      {{- with .Values.edge.tls.callers }}
      match_typed_subject_alt_names:
        {{- range . }}
        - san_type: {{ ternary "URI" "DNS" (contains "://" .) }}
          matcher: { exact: {{ . | quote }} }
        {{- end }}
      {{- end }}
{{- end }}
