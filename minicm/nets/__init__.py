"""Networks: every one is called net(x, c_noise, label=None, w=None, u=None) and returns F in x's shape."""
