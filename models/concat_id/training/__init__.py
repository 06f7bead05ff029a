"""Training at the paper's scale, on accelerate; the same code trains tiny networks on a CPU.

`recipe` says what to train, `cache` encodes videos and captions once, `samples` draws what a
step sees, `objective` makes the loss, `loop` trains, `checkpoint` survives a kill, `validation`
shows how it goes, `plan` says beforehand what it costs.
"""
