"""REST, jobs, live video and a web page in front of frameswap servers."""
