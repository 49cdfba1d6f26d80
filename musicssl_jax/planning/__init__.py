"""What a training is going to need and cost on a machine that need not be there."""
