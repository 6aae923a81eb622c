"""What a student learns from: aggregations, losses, connectors."""
