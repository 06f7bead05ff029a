"""Training of the transformers at both scales, on accelerate.

- `recipe`: what is trained on what, and how
- `loop`: the training; `setup`, `network`, `components`, `objective`, `checkpoint`,
  `trained_weights`: its parts
- what a stage trains on, either
  - `cache` and `samples`: videos and captions, encoded to disk (`pair_file` reads their pairs), or
  - `rendering`, `latents`, `scene_samples` and `scene_pairs`: rendered scenes, in memory
- `validation`: samples and scores during a training; `evaluation`: of the embedded networks
- `plan` and `measure`: the cost of a training, without running it
"""
