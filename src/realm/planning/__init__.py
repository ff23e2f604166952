"""What a training run costs before it starts: memory, disk, network, time."""
