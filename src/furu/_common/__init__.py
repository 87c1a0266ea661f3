"""What every layer may use, and no user imports: loops, steps, logs, text, where classes come from."""
