"""Tables of trials: what has been run is kept, and rows ask for what the core can do."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import ablations, label_codes, mnist, trials
from benchmarks.trials import KeptTrials, Trial
from nayer_core.contract.config import DistillConfig
from nayer_core.measuring.evaluation import EvaluationSet
from nayer_core.networks.registry import build
from nayer_core.networks.weights import freeze

TINY: dict[str, Any] = {
    **ablations.MNIST_BUDGET,
    "epochs": 1,
    "warmup_rounds_per_epoch": 1,
    "generator_steps": 2,
    "student_steps": 1,
    "synthesis_batch_size": 20,
    "student_batch_size": 8,
    "generator_width": 4,
}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """Trials that were run, in place of running them."""
    done: list[Trial] = []

    def run(trial: Trial) -> dict[str, float | None]:
        done.append(trial)
        return dict.fromkeys(trials.METRICS, 0.5) | {"convergence_steps": None}

    monkeypatch.setattr(trials, "run", run)
    return done


def test_an_interrupted_table_goes_on_and_repeats_nothing(
    tmp_path: Path, ran: list[Trial], capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results" / "kept.jsonl"
    ablations.main(["table15", "--seeds", "0", "--results", str(results)])
    assert len(ran) == 2
    ablations.main(["table15", "--seeds", "0", "1", "--results", str(results)])
    assert [trial.seed for trial in ran] == [0, 0, 1, 1]
    ablations.main(["table12", "--seeds", "0", "--results", str(results)])
    assert len(ran) == 4 + 7  # A3 is the row that Table 15 begins with
    ablations.main(["table4", "--kept-only", "--results", str(results)])
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert len(rows) == len(ran)
    printed = capsys.readouterr().out
    assert "| NL (K-to-1), A3 | 1 | 50.0 | 0.500 | 0.500 | - | 50% | 93.48" in printed
    assert "| NL (K-to-1), A3 | 2 | 50.0 ± 0.0 | 0.500 ± 0.000 | 0.500 ± 0.000 | - | 50% | 93.48" in printed


def test_a_trial_is_identified_by_what_its_outcome_depends_on(tmp_path: Path, ran: list[Trial]) -> None:
    finished_trials = KeptTrials(tmp_path / "kept.jsonl")
    spelt_out = {"epochs": 2, "bn_weight": DistillConfig().bn_weight}
    finished_trials.outcome(Trial("mnist", "sbert", {"epochs": 2}, 0))
    finished_trials.outcome(Trial("mnist", "sbert", spelt_out, 0))
    assert len(ran) == 1
    for other in (
        Trial("mnist", "gaussian", {"epochs": 2}, 0),
        Trial("mnist", "sbert", {"epochs": 3}, 0),
        Trial("mnist", "sbert", {"epochs": 2}, 1),
        Trial("cifar10", "sbert", {"epochs": 2}, 0),
    ):
        assert finished_trials.find(other) is None


def test_tables_name_rows_that_exist_and_no_row_is_forgotten() -> None:
    row_names = [name for _, names in ablations.TABLES.values() for name in names]
    assert set(row_names) == set(ablations.ROWS)
    configs = [json.dumps(dict(row.config), sort_keys=True) for row in ablations.ROWS.values()]
    assert len(set(configs)) == len(configs)


@pytest.mark.parametrize("table", ablations.TABLES)
def test_every_row_is_a_configuration_of_the_core(table: str) -> None:
    for name in ablations.TABLES[table][1]:
        trial = ablations.trial(table, name, 0)
        config = DistillConfig.model_validate(trial.config)
        assert config.model_dump().items() >= dict(ablations.ROWS[name].config).items()


def test_rows_cover_the_architectures_and_inputs_of_the_paper() -> None:
    configs = [DistillConfig.model_validate(row.config) for row in ablations.ROWS.values()]
    assert {config.noisy_layer_architecture for config in configs} == {f"A{index}" for index in range(1, 9)}
    assert {config.generator_input for config in configs} == {"lte", "one_hot", "noise", "concat", "sum"}
    assert {config.noisy_layer for config in configs} == {"k_to_1", "one_to_one", "none"}
    assert {config.noisy_layer_redraw for config in configs} == {True, False}


def test_codes_are_compared_where_they_exist() -> None:
    assert "clip" not in label_codes.codes_of("mnist-short", label_codes.CODES)
    assert label_codes.codes_of("cifar10-short", label_codes.CODES) == list(label_codes.CODES)
    assert label_codes.codes_of("cifar10-long", ["gaussian", "clip"]) == ["clip", "gaussian"]


def test_short_codes_of_mnist_share_their_run_with_the_ablations() -> None:
    codes = label_codes.trial("mnist-short", "sbert", 1)
    assert codes.identity() == ablations.trial("table4", "NL (K-to-1), A3", 1).identity()


def test_a_run_measures_what_the_paper_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    untrained = freeze(build("wrn_10_1", num_classes=10, input_size=mnist.SIZE))
    digits = EvaluationSet(torch.zeros(20, 28, 28, 1, dtype=torch.uint8), torch.zeros(20, dtype=torch.int64))
    monkeypatch.setattr(mnist, "load_teacher", lambda: untrained)
    monkeypatch.setitem(trials.DATA, "mnist", trials.DataSet(mnist.prepare, lambda: digits))
    outcome = trials.run(Trial("mnist", "gaussian", TINY, 0))
    assert set(outcome) == set(trials.METRICS)
    assert outcome["accuracy"] in (0, 1)  # the images are all alike
    assert 0 < outcome["diversity"] <= 2
    assert 0 < outcome["class_diversity"] <= 2
    assert outcome["convergence_steps"] is None
    assert outcome["converged"] == 0
