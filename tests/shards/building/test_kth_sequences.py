"""KTH's annotated sub-sequences: the real file, and files that are not as they should be.

Counts of the real file were taken from it with grep and a separate script, not with the code under test.
"""

from __future__ import annotations

import pytest

from shards.building.kth_sequences import ALL_CLIPS, CLASSES, MISSING, ClipName, read_annotations
from shards.errors import ShardError
from tests.conftest import shared_data

HEADER = "\nThis database contains sequences.\n\nTraining:   person11, 12\n\n"
BOXING = ClipName("boxing", 1, 1)


@pytest.fixture
def read(tmp_path):
    def read(text):
        file = tmp_path / "00sequences.txt"
        file.write_bytes(text.encode())
        return read_annotations(file)

    return read


@pytest.fixture(scope="module")
def real():
    return read_annotations(shared_data("kth", "00sequences.txt"))


def test_the_clips_of_the_dataset_are_all_combinations_but_one():
    everything = {f"person{p:02d}_{c}_d{t}" for p in range(1, 26) for c in CLASSES for t in range(1, 5)}
    assert {str(name) for name in ALL_CLIPS} == everything - {"person13_handclapping_d3"}
    assert len(ALL_CLIPS) == 599
    assert sum(name.is_test for name in ALL_CLIPS) == 120
    assert [str(name) for name in ALL_CLIPS[:2]] == ["person01_boxing_d1", "person01_boxing_d2"]


@pytest.mark.parametrize(
    "text",
    ["person00_boxing_d1", "person26_boxing_d1", "person1_boxing_d1", "person01_dancing_d1", "person01_boxing_d5", ""],
)
def test_a_name_that_is_no_clip_is_not_taken_for_one(text):
    assert ClipName.parse(text) is None


def test_name_and_parts_fit():
    name = ClipName.parse("person21_handwaving_d3")
    assert name == ClipName("handwaving", 21, 3)
    assert (name.label, name.is_test, str(name)) == (2, True, "person21_handwaving_d3")


def test_the_real_file_has_599_clips_and_one_that_is_missing(real):
    assert set(real.ranges) == set(ALL_CLIPS)
    assert real.missing == (MISSING,)
    assert sum(len(ranges) for ranges in real.ranges.values()) == 2391  # the number of the original paper


def test_ranges_of_the_real_file_are_kept_as_annotated(real):
    assert real.ranges[BOXING] == ((1, 95), (96, 185), (186, 245), (246, 360))
    assert real.ranges[ClipName("running", 7, 4)] == ((1, 52), (68, 115), (310, 358), (224, 274))


def test_an_inferred_length_is_the_largest_frame_even_if_it_is_not_the_last(real):
    assert real.inferred_length(BOXING) == 360
    assert real.inferred_length(ClipName("running", 7, 4)) == 358


def test_overlaps_disorder_and_odd_numbers_of_ranges_are_listed(real):
    assert {str(name): finding for name, finding in real.irregular().items()} == {
        "person03_walking_d4": "232-338 and 338-432 overlap",
        "person07_jogging_d4": "270-332 and 194-264 are out of order",
        "person07_running_d4": "310-358 and 224-274 are out of order",
        "person11_boxing_d4": "3 ranges",
        "person12_handclapping_d4": "134-238 and 237-344 overlap",
        "person13_handwaving_d3": "3 ranges",
        "person14_handwaving_d3": "3 ranges",
        "person15_boxing_d4": "3 ranges",
        "person15_handclapping_d2": "156-228 and 228-285 overlap",
        "person16_handwaving_d4": "207-311 and 212-456 overlap",
        "person17_boxing_d1": "1-110 and 110-192 overlap",
        "person21_boxing_d2": "113-162 and 153-254 overlap",
        "person21_handclapping_d1": "225-365 and 266-500 overlap",
        "person22_boxing_d1": "3 ranges",
    }


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_header_blank_lines_and_either_line_end_are_understood(read, end):
    text = HEADER + "person01_boxing_d1\t\tframes\t1-95, 96-185\n\nperson13_handclapping_d3\t*missing*\n"
    annotations = read(text.replace("\n", end))
    assert annotations.ranges == {BOXING: ((1, 95), (96, 185))}
    assert annotations.missing == (MISSING,)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("person02_boxing_d1\t\tframes\t1-95, 96\n", "line 7: found 'person02_boxing_d1"),
        ("person02_boxing_d1\t\tframes\t1-95 96-100\n", "line 7: found"),
        ("person02_boxing_d1\t\tframes\t\n", "line 7: found"),
        ("person02_boxing_d1\t\tframes\t1-95,\n", "line 7: found"),
        ("person02_boxing_d1\t\t1-95\n", "line 7: found"),
        ("person02_boxing_d1\n", "line 7: found"),
        ("person02_boxing_d1\t\tframes\t0-95\n", "line 7: frames 0-95 .* frames start at 1"),
        ("person02_boxing_d1\t\tframes\t1-95, 120-96\n", "line 7: frames 120-96"),
        ("person26_boxing_d1\t\tframes\t1-95\n", "line 7: 'person26_boxing_d1' is no clip"),
        ("some words\n", "line 7: 'some' is no clip"),
        ("person01_boxing_d1\t\tframes\t1-80\n", "line 7: person01_boxing_d1 is in line 6 already"),
        ("\n\nperson01_boxing_d1\t*missing*\n", "line 9: person01_boxing_d1 is in line 6 already"),
    ],
)
def test_a_malformed_line_is_named_by_its_number(read, line, message):
    with pytest.raises(ShardError, match=message) as caught:
        read(HEADER + "person01_boxing_d1\t\tframes\t1-95\n" + line)
    assert "00sequences.txt" in str(caught.value)


@pytest.mark.parametrize("text", ["", HEADER, HEADER + "person13_handclapping_d3\t*missing*\n"])
def test_a_file_without_any_range_is_refused(read, text):
    with pytest.raises(ShardError, match="no annotated clip in it"):
        read(text)


def test_no_such_file_says_what_to_give(tmp_path):
    with pytest.raises(ShardError, match="--sequences"):
        read_annotations(tmp_path / "00sequences.txt")


def test_the_length_of_a_clip_that_is_not_annotated_is_not_guessed(read):
    with pytest.raises(ShardError, match="no frames for person02_boxing_d1"):
        read("person01_boxing_d1\t\tframes\t1-95\n").inferred_length(ClipName("boxing", 2, 1))
