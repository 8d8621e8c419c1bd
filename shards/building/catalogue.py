"""Where the raw datasets come from: addresses, sizes, checksums, licences. Facts only; download.py acts on them.

Sizes and checksums are those of the sources cited here, never our own guess; None means that none is published.

    [TFDS]  github.com/tensorflow/datasets, tensorflow_datasets/url_checksums/NAME.txt: bair_robot_pushing_small, mnist,
            ucf101
    [VIPY]  github.com/visym/vipy, vipy/dataset/kthactions.py (SHA-1 of the six zips)
    [SVG]   github.com/edenton/svg, data/download_bair.sh and data/download_kth.sh
    [CVDF]  github.com/cvdfoundation/kinetics-dataset, README.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RemoteFile:
    """One file to fetch.

    Attributes:
        url: its address; the last part is its name here.
        size: in bytes, None if not published.
        digest: ``sha256:HEX`` or ``sha1:HEX``, None if not published.
        into: folder below the raw folder that its contents are unpacked into; None if it is used as it is.
    """

    url: str
    size: int | None = None
    digest: str | None = None
    into: str | None = None

    @property
    def name(self) -> str:
        """Its name on this machine."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Listing:
    """A dataset's raw files.

    Attributes:
        title: its full name.
        page: its home page.
        licence: what may be done with it, as far as its owners say.
        files: what to fetch; empty where its terms leave the fetching to a person.
        steps: what a person has to type or do; ``{raw}`` is the raw folder.
        builder: words after ``python -m shards build`` that use it; ``{raw}`` is the raw folder.
    """

    title: str
    page: str
    licence: str
    files: tuple[RemoteFile, ...]
    steps: tuple[str, ...]
    builder: str


Name = Literal["kth", "bair", "human", "ucf101", "kinetics", "moving-mnist"]

_KTH = "https://www.csc.kth.se/cvap/actions/"
_KTH_SHA1 = {  # [VIPY]
    "walking": "a3e81537271a0ab4576591774baa38c2d97b7e3a",
    "jogging": "21943bdbcef9dad106db0d74661e49eaeaa15a25",
    "running": "da83bb313edfd4455fffdda6263696fa10d43c6f",
    "boxing": "adb36ed9c29c846d44d2ba15f348bd115c951bbd",
    "handwaving": "0792f7cd69f7f895a205c08ac212ddaa7177e370",
    "handclapping": "d3b81261aa822ef63d0d1523f945bfaff27814d2",
}
_UCF101 = "https://www.crcv.ucf.edu/data/UCF101/"
_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_MNIST_FILES = {  # [TFDS]
    "train-images-idx3-ubyte.gz": (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    "train-labels-idx1-ubyte.gz": (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    "t10k-images-idx3-ubyte.gz": (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    "t10k-labels-idx1-ubyte.gz": (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
}

CATALOGUE: dict[Name, Listing] = {
    "kth": Listing(
        title="KTH actions: 599 videos of 25 persons and 6 actions, and their annotated sub-sequences",
        page=_KTH,
        licence="publicly available for non-commercial use; cite Schuldt, Laptev and Caputo, ICPR 2004",
        files=(
            RemoteFile(f"{_KTH}00sequences.txt"),
            *(
                RemoteFile(f"{_KTH}{action}.zip", digest=f"sha1:{sha1}", into=action)
                for action, sha1 in _KTH_SHA1.items()
            ),
        ),
        steps=(),
        builder="kth --raw {raw} --out data/kth",
    ),
    "bair": Listing(
        title="BAIR robot pushing, softmotion30_44k: 43,264 training and 256 test videos as TFRecords",
        page="https://sites.google.com/view/sna-visual-mpc/",
        licence="none found; public download of the authors; cite Ebert, Finn, Lee and Levine, CoRL 2017",
        files=(
            RemoteFile(  # address [SVG], size and checksum [TFDS]
                "http://rail.eecs.berkeley.edu/datasets/bair_robot_pushing_dataset_v0.tar",
                size=32_274_964_480,
                digest="sha256:c6f8d164ab2be07174ef597e3e070d7466f3142caddc467b6af119b9458cd9cd",
                into="",
            ),
        ),
        steps=(),
        builder="bair --raw {raw} --out data/bair",
    ),
    "human": Listing(
        title="Human3.6M: videos of subjects S1, S5, S6, S7, S8 (training), S9 and S11 (test)",
        page="http://vision.imar.ro/human3.6m/description.php",
        licence="academic use only, by a personal agreement (http://vision.imar.ro/human3.6m/eula.php); no copies",
        files=(),
        steps=(
            "register on that page with an academic address and accept the agreement",
            "after approval log in and fetch, for each subject, the archive of Videos:"
            " http://vision.imar.ro/human3.6m/filebrowser.php",
            "unpack each so that {raw}/S1/Videos/*.mp4 and so on are there: tar -xzf ARCHIVE.tgz -C {raw}",
        ),
        builder="human --raw {raw} --out data/human",
    ),
    "ucf101": Listing(
        title="UCF101: 13,320 videos of 101 actions, and the lists of its three splits",
        page="https://www.crcv.ucf.edu/data/UCF101.php",
        licence="none found; the videos are from YouTube; cite Soomro, Zamir and Shah, arXiv:1212.0402",
        files=(
            RemoteFile(f"{_UCF101}UCF101.rar", into=""),
            RemoteFile(  # [TFDS]
                f"{_UCF101}UCF101TrainTestSplits-RecognitionTask.zip",
                size=113_943,
                digest="sha256:5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27",
                into="",
            ),
        ),
        steps=(),
        builder="ucf101 --raw {raw} --out data/ucf101",
    ),
    "kinetics": Listing(
        title="Kinetics-400, -600, -700: clips of YouTube videos",
        page="https://github.com/cvdfoundation/kinetics-dataset",
        licence="the clips are those of YouTube's users, under its terms: whether you may copy them is yours to judge",
        files=(),
        steps=(  # [CVDF]
            "lists of classes and times: https://s3.amazonaws.com/kinetics/400/annotations/train.csv, val.csv, test.csv"
            " (600 and 700_2020 likewise)",
            "lists of archives: https://s3.amazonaws.com/kinetics/400/train/k400_train_path.txt, val/k400_val_path.txt,"
            " test/k400_test_path.txt; the page above has scripts that fetch and unpack them",
            "put the clips as {raw}/train/CLASS/*.mp4 and {raw}/val/CLASS/*.mp4, or the CSV files beside them",
        ),
        builder="kinetics --raw {raw} --out data/kinetics",
    ),
    "moving-mnist": Listing(
        title="MNIST, of whose digits Moving MNIST is made",
        page="http://yann.lecun.com/exdb/mnist/",
        licence="Creative Commons Attribution-Share Alike 3.0, as the documentation of Keras says; Y. LeCun, C. Cortes",
        files=tuple(
            RemoteFile(f"{_MNIST}{name}", size, f"sha256:{sha256}") for name, (size, sha256) in _MNIST_FILES.items()
        ),
        steps=(),
        builder="moving-mnist --mnist {raw} --out data/mmnist",
    ),
}
