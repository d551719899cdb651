"""The `bench` command: training steps and the input pipeline, measured on this machine."""
