"""One page a paper. Every objective is called objective(f, f_target, x0, label, k, K, generator) -> losses (B,)."""
