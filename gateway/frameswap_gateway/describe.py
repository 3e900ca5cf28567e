"""Print the OpenAPI description: python -m frameswap_gateway.describe > gateway/openapi.json."""

from __future__ import annotations

import json
import sys

from frameswap_gateway.app import describe_api

__all__ = ["main"]


def main() -> int:
    """Print it."""
    print(json.dumps(describe_api(), indent=1, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
