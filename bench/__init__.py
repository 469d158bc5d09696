"""The benchmark: a load generator, a scripted upstream, contenders and a table (docs/performance.md)."""
