"""Encodings: the exact ones are exact, the others as good as documented, and all give the same bytes every time."""

import numpy as np
import pytest
import zstandard

from shards.encoding import Encoding, decode, decode_frames, encode
from shards.errors import DamageError, ShardError
from shards.manifest import ArraySpec, video_spec


def textured(channels: int = 3) -> np.ndarray:
    """A smooth moving pattern with some noise, uint8 TCHW."""
    y, x = np.mgrid[:32, :48]
    wave = [[127 + 80 * np.sin(x / (3 + c) + t / 4) + 20 * np.cos(y / 5) for c in range(channels)] for t in range(10)]
    noise = np.random.default_rng(0).normal(0, 3, (10, channels, 32, 48))
    return (np.array(wave) + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["raw", "zstd", "mp4:0"])
def test_exact_encodings_give_back_every_value(name, channels):
    frames_TCHW = textured(channels)
    encoding = Encoding.parse(name)
    data = encode(frames_TCHW, encoding.kind, crf=encoding.crf, fps=10)
    assert encoding.is_exact
    assert np.array_equal(decode(data, encoding.kind, "uint8", frames_TCHW.shape), frames_TCHW)


def test_mp4_is_smaller_and_as_good_as_documented():
    frames_TCHW = textured()
    data = encode(frames_TCHW, "mp4", fps=10)
    decoded = decode(data, "mp4", "uint8", frames_TCHW.shape)
    error = np.mean((decoded.astype(float) - frames_TCHW) ** 2)
    assert not Encoding.parse("mp4").is_exact
    assert len(data) < 0.5 * frames_TCHW.nbytes
    assert 10 * np.log10(255**2 / error) > 38


def test_mp4_gives_the_same_bytes_every_time():
    frames_TCHW = textured()
    assert len({encode(frames_TCHW, "mp4", fps=10) for _ in range(6)}) == 1


def test_fields_are_stored_raw_whatever_the_encoding():
    field = ArraySpec("float32", "TCHW", (5, 2, 8, 8), (-1.0, 1.0))
    assert {Encoding.parse(name).kind_for(field) for name in ("raw", "zstd", "mp4:7")} == {"raw"}
    assert Encoding.parse("mp4:7").kind_for(video_spec()) == "mp4"
    assert Encoding.parse("mp4").kind_for(ArraySpec("uint8", "NHW", (None, 28, 28), (0, 255))) == "raw"


@pytest.mark.parametrize("name", ["jpeg", "mp4:", "mp4:99", "mp4:-1", "zstd:3", "raw:1", ""])
def test_unknown_encodings_are_refused(name):
    with pytest.raises(ShardError, match="unknown encoding"):
        Encoding.parse(name)


def test_a_compressed_member_may_not_announce_more_than_its_shape():
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 24))
    with pytest.raises(DamageError, match="announces 16777216 bytes, expected 300"):
        decode(bomb, "zstd", "uint8", (100, 3))


@pytest.mark.parametrize("kind", ["raw", "zstd", "mp4"])
def test_bytes_that_hold_something_else_are_damage(kind):
    with pytest.raises(DamageError):
        decode(b"not what it should be", kind, "uint8", (2, 3, 8, 8))


def test_a_video_of_another_shape_is_damage():
    data = encode(textured(), "mp4")
    with pytest.raises(DamageError, match=r"expected \(10, 3, 32, 40\)"):
        decode(data, "mp4", "uint8", (10, 3, 32, 40))
    assert decode_frames(data, 4).shape == (4, 3, 32, 48)


def test_mp4_refuses_what_it_cannot_hold():
    with pytest.raises(ShardError, match="1 or 3 channels"):
        encode(np.zeros((4, 2, 8, 8), np.uint8), "mp4")
