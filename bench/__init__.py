"""What the proxy costs: a load generator, scripted upstreams, contenders and a table (docs/performance.md)."""
