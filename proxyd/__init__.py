"""claude-proxy: a streaming proxy that lets Claude Code run on any model."""

__version__ = "0.1.0"
