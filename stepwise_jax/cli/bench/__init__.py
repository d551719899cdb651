"""The `bench` command: measures training steps and the input pipeline on this machine."""
