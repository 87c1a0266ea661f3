"""Plans: what a run would do, why, and how long it would take. No node is computed."""
