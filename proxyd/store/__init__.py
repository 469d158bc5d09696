"""What the daemon keeps beside the ledger: virtual keys, their limits and their usage."""
