"""What is trained: the first stage and the diffusion."""
