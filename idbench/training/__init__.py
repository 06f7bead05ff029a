"""The parts that all trainings share: loop, checkpoints, schedule, averaged weights, log."""
