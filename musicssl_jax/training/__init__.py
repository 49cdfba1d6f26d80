"""What the train loop is made of: state, optimizer, step, checkpoints, metrics, reports."""
