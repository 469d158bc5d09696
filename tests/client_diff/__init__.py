"""What changed between two versions of Claude Code, as recorded by the proxy (docs/compatibility.md)."""
