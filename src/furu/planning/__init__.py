"""What a run would do: reasons, forecasts, comparisons. Computes nothing."""
