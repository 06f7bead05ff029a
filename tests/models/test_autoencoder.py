"""The autoencoder's helpers: the quick path for single frames, scaling, sizes."""

from __future__ import annotations

import numpy as np
import torch

from idbench.models.concat_id.autoencoder import (
    decode,
    encode,
    speed_up_single_frames,
    start_without_time,
    to_frames,
    to_tensor,
)


def randomise(vae) -> None:
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def test_the_quick_path_equals_diffusers_own(vae):
    randomise(vae)
    frame, clip = torch.rand(2, 3, 1, 16, 24) - 0.5, torch.rand(1, 3, 9, 16, 24) - 0.5

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        again = vae.decode(vae.encode(clip).latent_dist.mean).sample
        return vae.encode(frame).latent_dist.mean, again

    with torch.no_grad():
        before = both()
        speed_up_single_frames(vae)
        after = both()
    torch.testing.assert_close(after[0], before[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after[1], before[1], rtol=1e-4, atol=1e-5)


def test_the_last_tap_alone_is_exact_at_the_start_and_trains_no_other(vae):
    frame = torch.rand(2, 3, 1, 16, 24) - 0.5
    with torch.no_grad():
        before = vae.encode(frame).latent_dist.mean
    speed_up_single_frames(vae, last_tap_only=True)
    after = vae.encode(frame).latent_dist.mean
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    after.square().sum().backward()
    gradient = vae.encoder.conv_in.conv.weight.grad
    assert not gradient[:, :, :-1].any() and gradient[:, :, -1].any()


def test_a_still_clip_starts_as_its_single_frame(vae):
    start_without_time(vae)
    frame = torch.rand(1, 3, 1, 16, 24) - 0.5
    with torch.no_grad():
        one = vae.encode(frame).latent_dist.mean
        clip = vae.encode(frame.expand(-1, -1, 9, -1, -1)).latent_dist.mean
    torch.testing.assert_close(clip, one.expand(-1, -1, 3, -1, -1), rtol=1e-3, atol=1e-4)


def test_encode_and_decode_have_the_transformers_layout_and_scale(vae):
    images = torch.rand(2, 3, 9, 16, 24) - 0.5
    z = encode(vae, images)
    assert z.shape == (2, 3, 4, 4, 6)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mean = vae.encode(images).latent_dist.mean.float()
    torch.testing.assert_close(z, mean.transpose(1, 2) * 0.7)
    assert decode(vae, z).shape == images.shape


def test_the_first_latent_frame_of_a_clip_is_that_of_its_first_image(vae):
    randomise(vae)
    images = torch.rand(1, 3, 9, 16, 24) - 0.5
    later = images.clone()
    later[:, :, 1:] = torch.rand(1, 3, 8, 16, 24) - 0.5
    # Group norms look at the whole clip; without them the network is causal.
    for module in vae.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda x: x
    with torch.no_grad():
        a, b = (vae.encode(x).latent_dist.mean for x in (images, later))
    torch.testing.assert_close(a[:, :, 0], b[:, :, 0])


def test_frames_survive_the_way_to_tensors_and_back():
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8, 3), dtype=np.uint8)
    assert np.array_equal(to_frames(to_tensor(frames)), frames)


def test_without_temporal_compression_a_frame_does_not_see_its_neighbours():
    from idbench.models.concat_id.autoencoder import build_vae

    from .conftest import VAE

    torch.manual_seed(3)
    vae = build_vae({**VAE, "temporal_compression_ratio": 1}).eval()
    randomise(vae)
    clip = torch.rand(2, 3, 5, 16, 24) - 0.5
    latents = encode(vae, clip)
    assert latents.shape[:2] == (2, 5), "one latent frame each"
    other = clip.clone()
    other[:, :, 1:] = 0.3
    assert torch.equal(encode(vae, other)[:, 0], latents[:, 0])
    again = decode(vae, latents)
    assert again.shape == clip.shape
    torch.testing.assert_close(decode(vae, latents[:, 3:4])[:, :, 0], again[:, :, 3])
