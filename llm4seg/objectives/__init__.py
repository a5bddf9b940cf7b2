"""What is minimized and what is counted: losses and metrics on tensors."""
