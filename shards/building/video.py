"""Reading video files: pictures, counts, and what the container announces.

In: a file that FFmpeg's libraries decode, a :class:`Look`, which frames. Out: pictures in the order of the decoder, or
resampled by time stamps, with notices about what is odd; BadSource where the file cannot be used.

At the file's own rate frames are taken as they are decoded, one by one, as OpenCV and ``ffmpeg -fps_mode passthrough``
do. With ``fps`` picture k is the frame shown k / fps seconds after the first. One thread decodes: builders run a
process per core.

Axis letters: T frames, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shards.building.picture import Look, forget_filters
from shards.building.plan import BadSource, Notice, printable
from shards.errors import ShardError

if TYPE_CHECKING:
    import av

_LONGEST_GAP_SECONDS = 60
_LEAST_FPS = 1 / 1000
_FIRST_ROOM = 16  # pictures
_UNEVEN_SHARE = Fraction(1, 10)  # of a frame's time; time stamps that differ by less are called even


@dataclass(frozen=True)
class Frames:
    """Which frames of a file: number ``start``, ``start + stride``, ...

    Attributes:
        fps: resample by time stamps to this rate, before ``start`` and ``stride`` count; None takes every frame.
        start: number of the first one.
        count: how many are needed; None for all there are.
        stride: from each one to the next.
        exact_length: a file with one frame less than announced is truncated, and one frame that was not decoded
            without errors is damage; otherwise 1 % and one frame are forgiven. A file's length is looked at only where
            it is read to its end.

    Raises:
        ShardError: numbers out of range.
    """

    fps: float | None = None
    start: int = 0
    count: int | None = None
    stride: int = 1
    exact_length: bool = False

    def __post_init__(self) -> None:
        if self.start < 0 or self.stride < 1 or (self.count is not None and self.count < 1):
            raise ShardError(f"need start >= 0, stride and count >= 1; found {self}")
        if self.fps is not None:
            check_rate(self.fps, "frames per second")


ALL_FRAMES = Frames()


class Pictures:
    """Pictures in one array that grows in place: memory is that of the pictures and at most an eighth more.

    Args:
        look: that they have.
    """

    def __init__(self, look: Look) -> None:
        self._shape = look.num_channels, look.size, look.size
        self._room_TCHW = np.empty((_FIRST_ROOM, *self._shape), np.uint8)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, picture_CHW: NDArray[np.uint8]) -> None:
        """Take in one more."""
        room = len(self._room_TCHW)
        if self._count == room:
            self._resize(room + max(_FIRST_ROOM, room // 8))
        self._room_TCHW[self._count] = picture_CHW
        self._count += 1

    def taken(self) -> NDArray[np.uint8]:
        """All so far (TCHW), which are then forgotten here."""
        self._resize(self._count)
        taken_TCHW = self._room_TCHW
        self._room_TCHW, self._count = np.empty((_FIRST_ROOM, *self._shape), np.uint8), 0
        return taken_TCHW

    def _resize(self, room: int) -> None:
        self._room_TCHW.resize((room, *self._shape), refcheck=False)  # Linux moves pages: nothing is copied


@dataclass(frozen=True)
class Clip:
    """What was read of a file.

    Attributes:
        frames_TCHW: the pictures.
        rate: frames per second of the file, None if it does not say.
        notices: what is odd about it.
    """

    frames_TCHW: NDArray[np.uint8]
    rate: float | None
    notices: tuple[Notice, ...]


@dataclass(frozen=True)
class Probe:
    """What a container announces, without decoding.

    Attributes:
        frames: number of frames; where only a duration is announced, its product with the rate; None if neither is.
        rate: frames per second, on average; None if unknown.
        width: pixels of a frame, before rotation.
        height: pixels of a frame, before rotation.
        duration: seconds; None if unknown.
    """

    frames: int | None
    rate: float | None
    width: int
    height: int
    duration: float | None


def read_video(path: Path, look: Look, which: Frames = ALL_FRAMES) -> Clip:
    """Pictures of a file, in the memory of the clip alone.

    Args:
        path: of the file.
        look: how a frame becomes a picture.
        which: frames are wanted.

    Raises:
        BadSource: ``unreadable``; ``no frames``; ``truncated``; ``damaged`` where over 1 % does not decode or not
            without errors; ``time stamps`` with gaps of over a minute; ``too short`` for ``which``; a crop box
            ``outside the frame``.
    """
    notices: list[Notice] = []
    pictures = Pictures(look)
    for piece in iterate_video(path, look, which):
        if isinstance(piece, Notice):
            notices.append(piece)
        else:
            pictures.append(piece)
    if not len(pictures):
        raise BadSource("too short", f"{printable(path)} has no frame number {which.start}")
    return Clip(pictures.taken(), probe(path).rate, tuple(notices))


def iterate_video(path: Path, look: Look, which: Frames = ALL_FRAMES) -> Iterator[NDArray[np.uint8] | Notice]:
    """The pictures of :func:`read_video` one by one (uint8 CHW), in bounded memory; notices come last.

    Raises:
        BadSource: as :func:`read_video`; what is wrong with the end of a file is known after its last picture.
    """
    with _opened(path) as (container, stream):
        forget_filters()
        decoding = _Decoding(path, container, stream)
        shown = decoding.frames() if which.fps is None else decoding.resampled(as_fraction(which.fps))
        given = 0
        for given, frame in enumerate(islice(shown, which.start, None, which.stride), start=1):
            yield look.picture(frame, stream.sample_aspect_ratio or Fraction(1))
            if given == which.count:
                break
        else:
            decoding.check_length(exact=which.exact_length)
            if which.count is not None:
                wanted = f"needed {which.count} from number {which.start} on in steps of {which.stride}"
                raise BadSource("too short", f"{printable(path)} gives {given} pictures, {wanted}")
        decoding.check_damage(exact=which.exact_length)
        yield from decoding.notices(which.fps)


def count_frames(path: Path, *, exact_length: bool = False) -> int:
    """Number of frames of a file, found by decoding all of it.

    Args:
        path: of the file.
        exact_length: as in :class:`Frames`.

    Raises:
        BadSource: ``unreadable``, ``no frames``, ``truncated``, ``damaged`` or ``time stamps``.
    """
    with _opened(path) as (container, stream):
        decoding = _Decoding(path, container, stream)
        for _ in decoding.frames():
            pass
        decoding.check_length(exact=exact_length)
        decoding.check_damage(exact=exact_length)
        return decoding.decoded


def probe(path: Path) -> Probe:
    """What the container of a file announces.

    Raises:
        BadSource: ``unreadable``.
    """
    with _opened(path) as (container, stream):
        duration = _announced_seconds(stream)
        if duration is None and container.duration:
            duration = Fraction(container.duration, 1_000_000)
        rate = _rate(stream)
        estimate = round(duration * rate) if duration and rate else None
        width, height = stream.codec_context.width, stream.codec_context.height
        seconds = float(duration) if duration else None
        return Probe(stream.frames or estimate, float(rate) if rate else None, width, height, seconds)


class _Decoding:
    """The frames of an open stream, and what was noticed on the way.

    Ticks are the stream's unit of time. An AVI has no presentation times: its decoding times are those of the frames
    as they come out (what the decoder calls presentation times steps 1, 2, -1 with B-frames).
    """

    def __init__(self, path: Path, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        self.decoded = 0
        self._name = printable(path)
        self._container = container
        self._stream = stream
        self._is_avi = container.format.name == "avi"
        rate = _rate(stream)
        self._usual_step = 1 / (rate * stream.time_base) if rate else Fraction(1)
        self._longest_gap = int(_LONGEST_GAP_SECONDS / stream.time_base)
        self._ticks = 0
        self._end = 0
        self._shortest: int | None = None
        self._longest = 0
        self._lost = 0
        self._corrupt = 0
        self._backwards = 0
        self._repeated = 0

    def frames(self) -> Iterator[av.VideoFrame]:
        """All frames as decoded. A packet that cannot be decoded is passed over, as players do.

        Where only a part of a packet is damaged FFmpeg paints over it from the frames before, and marks the frame.
        """
        import av

        for packet in self._packets():
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                self._lost += 1
                continue
            for frame in frames:
                self._note_time(frame)
                self.decoded += 1
                self._corrupt += frame.is_corrupt
                yield frame

    def _packets(self) -> Iterator[av.Packet]:
        try:
            yield from self._container.demux(self._stream)
        except IndexError as error:  # PyAV's, where damage looks like another stream
            raise BadSource("unreadable", f"{self._name}: a stream begins in the middle of the file") from error

    def resampled(self, fps: Fraction) -> Iterator[av.VideoFrame]:
        """The frame shown at 0, 1/fps, 2/fps ... after the first one, until the last one's time is over.

        Time stamps that had to be rounded (thirds of a second in milliseconds) may be late by half a tick.
        """
        per_tick = self._stream.time_base * fps
        is_rounded = self._usual_step.denominator != 1
        late = Fraction(1, 2) if is_rounded else Fraction(0)
        number, shown, first = 0, None, 0
        for frame in self.frames():
            if shown is None:
                first = self._ticks
            else:
                self._check_gap()
                number = yield from self._held(shown, number, (self._ticks - first - late) * per_tick)
            shown = frame
        if shown is not None:
            yield from self._held(shown, number, (self._end - first - late) * per_tick)

    def _held(self, shown: av.VideoFrame, number: int, until: Fraction) -> Generator[av.VideoFrame, None, int]:
        """A frame for each number before ``until``, returning the next number."""
        following = max(number, math.ceil(until))
        self._repeated += max(0, following - number - 1)
        for _ in range(number, following):
            yield shown
        return following

    def _check_gap(self) -> None:
        if self._longest > self._longest_gap:
            gap = f"{float(self._longest * self._stream.time_base):.0f} s before frame {self.decoded - 1}"
            raise BadSource("time stamps", f"{self._name}: {gap}")

    def check_length(self, *, exact: bool) -> None:
        """Raise BadSource where fewer frames came out than the container announces.

        The number of frames that MP4 announces includes those that its edit list hides (of clips cut without encoding
        anew): there it is the duration that counts, unless the length must be exact.
        """
        if self.decoded == 0:
            raise BadSource("no frames", f"{self._name}: no frame could be decoded")
        announced = self._stream.frames if exact or self._is_avi else 0
        if self.decoded < announced - (0 if exact else _forgiven(announced)):
            raise BadSource("truncated", f"{self._name}: {self.decoded} of {announced} announced frames")
        seconds = None if announced else _announced_seconds(self._stream)
        found = (self._end + max(self._longest, self._usual_step)) * self._stream.time_base
        if seconds and found < seconds * Fraction(99, 100):
            raise BadSource("truncated", f"{self._name}: {float(found):.2f} of {float(seconds):.2f} announced seconds")

    def check_damage(self, *, exact: bool) -> None:
        """Raise BadSource where over 1 % and one of the frames so far are lost or were decoded with errors.

        Raises:
            BadSource: ``damaged``; with ``exact`` a single frame suffices.
        """
        if self._lost + self._corrupt > (0 if exact else _forgiven(self.decoded)):
            raise BadSource("damaged", f"{self._name}: {self._damage()}")

    def _damage(self) -> str:
        lost = [f"{self._lost} packets could not be decoded"] * bool(self._lost)
        corrupt = [f"{self._corrupt} of {self.decoded} frames were decoded with errors"] * bool(self._corrupt)
        return ", ".join(lost + corrupt)

    def notices(self, fps: float | None) -> Iterator[Notice]:
        """What is odd about the frames so far; ``fps`` is the rate they were resampled to."""
        if self._lost or self._corrupt:
            yield Notice("damaged frames", self._damage())
        tick = self._stream.time_base
        if self._shortest is not None and self._longest - self._shortest > max(2, self._usual_step * _UNEVEN_SHARE):
            steps = f"{float(self._shortest * tick):.3f} to {float(self._longest * tick):.3f} s from frame to frame"
            how = "taken as they come" if fps is None else "resampled by time"
            yield Notice("variable frame rate", f"{steps}; {how}")
        if fps is not None and self._backwards:
            yield Notice("time stamps run backwards", f"at {self._backwards} frames, taken as if time stood still")
        rate = _rate(self._stream)
        if fps is not None and self._repeated and (rate is None or fps > rate):
            found = f"{float(rate):.6g} frames per second found, {fps:.6g} asked for" if rate else "unknown frame rate"
            yield Notice("upsampled", f"{self._repeated} pictures repeat the one before: {found}")

    def _note_time(self, frame: av.VideoFrame) -> None:
        stamp = frame.dts if self._is_avi else frame.pts
        if self.decoded == 0:
            self._ticks = stamp or 0
        else:
            ticks = self._end if stamp is None else stamp
            self._backwards += ticks < self._ticks
            step = max(0, ticks - self._ticks)
            self._shortest = step if self._shortest is None else min(self._shortest, step)
            self._longest = max(self._longest, step)
            self._ticks += step
        self._end = self._ticks + min(frame.duration or round(self._usual_step), self._longest_gap)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """A file's best video stream; errors of the libraries become BadSource.

    Only local files are read, also where a file is a playlist that names others.
    """
    import av

    try:
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
            stream = container.streams.best("video")
            if stream is None:
                kinds = ", ".join(stream.type for stream in container.streams) or "none"
                raise BadSource("unreadable", f"{printable(path)}: no video stream (streams: {kinds})")
            if stream.codec_context is None:
                raise BadSource("unreadable", f"{printable(path)}: no decoder for its codec")
            stream.codec_context.thread_count = 1
            yield container, stream
    except (av.error.FFmpegError, UnicodeDecodeError) as error:
        raise BadSource("unreadable", f"{printable(path)}: {getattr(error, 'strerror', None) or error}") from error


def check_rate(fps: float, name: str) -> None:
    """Raise ShardError unless this is a rate to resample to."""
    if not _LEAST_FPS <= fps < math.inf:
        raise ShardError(f"{name} {fps:g}: expected a finite number of at least {_LEAST_FPS:g}")


def as_fraction(fps: float) -> Fraction:
    """A rate that a person typed: 29.97 is 2997/100, and 30000 / 1001 stays what it is."""
    return Fraction(fps).limit_denominator(1_000_000)


def _forgiven(num_frames: int) -> int:
    return num_frames // 100 + 1


def _rate(stream: av.VideoStream) -> Fraction | None:
    return stream.average_rate or stream.guessed_rate or None


def _announced_seconds(stream: av.VideoStream) -> Fraction | None:
    """The stream's duration, or Matroska's tag of it ("00:01:02.300000000")."""
    if stream.duration:
        return Fraction(stream.duration * stream.time_base)
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        return 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)
    except ValueError:
        return None
