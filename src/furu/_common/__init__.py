"""Private helpers for all layers: event loops, interrupts, logs, text, argument checks, class names."""
