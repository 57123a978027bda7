"""What sluicegate costs, each figure as a ratio to a reference that ran beside it."""
