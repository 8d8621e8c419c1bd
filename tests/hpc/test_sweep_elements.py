"""What a sweep's file says: its elements and their names; errors that name the key and the nearest right one."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc import config as configs
from hpc.config import ConfigError
from hpc.sweep.elements import load_sweep

EXAMPLE = Path(configs.CONFIG_ROOT) / "sweep" / "learning_rate.yaml"


def sweep_file(folder: Path, text: str) -> Path:
    path = folder / "rates.yaml"
    path.write_text(text)
    return path


def names(folder: Path, text: str) -> list[str]:
    return [element.name for element in load_sweep(sweep_file(folder, text))]


def test_a_grid_is_every_combination_and_seeds_multiply_it(tmp_path):
    text = "base: {train.steps: 7}\ngrid: {optimizer.lr: [1e-3, 3.0e-4], model.ny: [20, 50]}\nseeds: [1, 2]"
    elements = load_sweep(sweep_file(tmp_path, text))
    assert [element.name for element in elements[:3]] == [
        "lr=0.001,ny=20,seed=1",
        "lr=0.001,ny=20,seed=2",
        "lr=0.001,ny=50,seed=1",
    ]
    assert len(elements) == len({element.name for element in elements}) == 8
    assert elements[-1].own == {"optimizer.lr": 3e-4, "model.ny": 50, "seed": 2}
    assert elements[-1].overrides == ["train.steps=7", "optimizer.lr=0.0003", "model.ny=50", "seed=2"]
    assert elements[0].sweep == "rates"


def test_a_list_names_what_differs_and_may_be_nested(tmp_path):
    text = "name: few\nlist: [{optimizer: {lr: 0.1, eps: 1}}, {optimizer: {lr: 0.1, eps: 2}}, {seed: 4}]"
    elements = load_sweep(sweep_file(tmp_path, text))
    assert [element.name for element in elements] == ["lr=0.1,eps=1", "lr=0.1,eps=2", "seed=4"]
    assert elements[0].sweep == "few"
    same = "list: [{optimizer.lr: 0.1, optimizer.eps: 1}, {optimizer.lr: 0.1, optimizer.eps: 2}]"
    assert names(tmp_path, same) == ["eps=1", "eps=2"]


def test_seeds_alone_are_a_sweep(tmp_path):
    assert names(tmp_path, "seeds: [3, 1]") == ["seed=3", "seed=1"]


def test_keys_with_the_same_ending_are_told_apart(tmp_path):
    text = "grid: {eval.num_frames: [6], data.num_frames: [5, 6]}"
    assert names(tmp_path, text)[0] == "eval.num_frames=6,data.num_frames=5"


def test_names_are_safe_folder_names_and_unique_whatever_the_values_are(tmp_path):
    long = [f"{'x' * 150}{end}" for end in "ab"]
    text = f"grid: {{data.root: [/a b, /a:b, '../c', {long[0]}, {long[1]}], cluster.setup: [[module load x, 'y']]}}"
    found = names(tmp_path, text)
    assert len(set(found)) == 5
    for name in found:
        assert len(name) <= 120
        assert Path(name).name == name
        assert not set(name) & set(" /:*?$'\"\\")


def test_experiment_and_size_can_be_varied_too(tmp_path):
    elements = load_sweep(sweep_file(tmp_path, "grid: {experiment: [srvp_kth, srvp_bair], size: [test]}"))
    assert elements[1].name == "experiment=srvp_bair,size=test"
    assert elements[1].overrides == []


def test_overrides_say_on_a_command_line_what_the_file_says(tmp_path):
    text = "list: [{optimizer.lr: 1e-05, data.root: 'a: b, [c]', cluster.setup: ['x y', z], data.verify: false}]"
    (element,) = load_sweep(sweep_file(tmp_path, text))
    config = configs.load("srvp_smmnist", "test", "", element.overrides)
    assert (config.optimizer.lr, config.data.root, config.data.verify) == (1e-5, "a: b, [c]", False)
    assert config.cluster.setup == ["x y", "z"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grid: {optimizer.lrr: [1, 2]}", r"grid: unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'"),
        ("list: [{seed: 1}, {sed: 2}]", r"list, entry 2: unknown key 'sed'; did you mean 'seed'"),
        ("base: {lr: 1}\nseeds: [1]", r"base: unknown key 'lr'; did you mean 'optimizer.lr'"),
        ("optimizer: {lr: 1}", r"unknown part 'optimizer'.*stands under base"),
        ("grid: {optimizer.lr: 0.1}", r"grid: optimizer.lr expected a list such as \[1, 2\], found 0.1"),
        ("seeds: 3", r"seeds: expected a list"),
        ("seeds: []", r"seeds: expected a list"),
        ("seeds: [1, 1]", r"element seed=1 stands there twice"),
        ("grid: {seed: [1]}\nseeds: [2]", r"seeds: and seed at once"),
        ("grid: {seed: [1]}\nlist: [{seed: 1}]", r"grid: and list: at once"),
        ("base: {seed: 1}\nseeds: [2]", r"seed stands under base: and is varied"),
        ("base: {seed: 1}", r"nothing to sweep over"),
        ("base: [seed=1]\nseeds: [2]", r"base: expected a mapping"),
        ("name: a/b\nseeds: [2]", r"becomes a folder"),
        ("- 1", r"expected a mapping with some of name, base"),
        ("grid: {seed: [1", r"rates.yaml"),
    ],
)
def test_a_mistake_is_an_error_that_names_it(tmp_path, text, said):
    with pytest.raises(ConfigError, match=rf"(?s)rates.yaml.*{said}" if "rates" not in said else said):
        load_sweep(sweep_file(tmp_path, text))


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"no such file; configs/sweep holds an example"):
        load_sweep(tmp_path / "nothing.yaml")


def test_the_example_is_one():
    elements = load_sweep(EXAMPLE)
    assert len(elements) == 6
    for element in elements:
        config = configs.load(element.settings["experiment"], element.settings["size"], "", element.overrides)
        assert config.eval.every == 500
