"""The finders: good and damaged files of all versions, and the files and texts of an answer."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from finder_tables import (
    CPUS,
    GPUS,
    LADDER,
    LIMIT,
    MODEL,
    RAM,
    RAPID_COLUMNS,
    STATIONS,
    SUCCESS,
    TIME,
    Write,
    cpu_finder,
    failed,
    ours,
    ripper,
    theirs,
)

from eqcctpro import (
    OptimalCPUConfigurationFinder,
    OptimalGPUConfigurationFinder,
)
from eqcctpro.errors import InputError, OutputError, SettingsError
from eqcctpro.evaluation.canonical import CANONICAL_CSV_HEADER, PUBLISHED_COLUMNS
from eqcctpro.evaluation.finder_files import BEST_COLUMNS, write_finder_files
from eqcctpro.evaluation.machine import describe_machine
from eqcctpro.evaluation.results import read_results


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_files_of_eqcctpro(write_trials: Write, quoting: Any) -> None:
    rows = [theirs(10, 4, 5.0), theirs(10, 2, 2.0, **{SUCCESS: 0}), ripper(10, 2, 9.0)]
    folder = write_trials(rows, header=PUBLISHED_COLUMNS, quoting=quoting)
    table = read_results(folder, "cpu")
    assert [trial.mode for trial in table.trials] == ["modelactor", "modelactor", "ripper"]
    assert {trial.layout for trial in table.trials} == {"EQCCTPro"} and table.notes == ()
    best = cpu_finder(folder).find_best_overall_usecase("eqcct")
    assert (best.model, best.workers, best.cpus, best.seconds) == ("EQCCT/original", 4, 4, 5.0)
    assert best.ram_mb == 1586.0
    assert best.runner_up is not None and best.runner_up.workers == 2
    assert any("Measured by EQCCTPro" in note for note in best.notes)
    parameters = best.parameters()
    assert parameters["model_type"] == "eqcct" and "runtime" not in parameters
    assert parameters["number_of_concurrent_station_predictions"] == 4


def test_files_of_rapid(write_trials: Write) -> None:
    assert len(RAPID_COLUMNS) == 53
    counted = {"Successful Inference Tasks": 10, "Total Station Tasks": 10, RAM: 2000.0}
    rows = [
        theirs(10, 4, 5.0, **counted),
        theirs(10, 8, 1.0, **(counted | {"Successful Inference Tasks": 9})),
    ]
    finder = cpu_finder(write_trials(rows, header=RAPID_COLUMNS))
    best = finder.find_best_overall_usecase()
    assert (best.seconds, best.ram_mb, best.trial.layout) == (5.0, 2000.0, "RAPID")
    assert finder.notes == (
        "cpu_test_results.csv, line 3: 1 of 10 stations failed, so the trial counts as failed",
    )


def test_our_rows_in_a_file_of_eqcctpro(write_trials: Write) -> None:
    rows = [theirs(100, 4, 1.0, **{MODEL: "EQTransformer/original"}), ours(100, 2, 5.0)]
    folder = write_trials(rows)
    assert [t.layout for t in read_results(folder, "cpu").trials] == ["EQCCTPro", "ours"]
    best = cpu_finder(folder).find_best_overall_usecase()
    assert (best.seconds, best.runner_up) == (5.0, None), "another program's times are no rival"


def test_lists_without_quotes(write_trials: Write) -> None:
    folder = write_trials([theirs(10, 4, 5.0, **{GPUS: "[0, 1]"})], "gpu", PUBLISHED_COLUMNS)
    path = folder / "gpu_test_results.csv"
    path.write_text(path.read_text().replace('"[0, 1]"', "[0, 1]"))
    best = OptimalGPUConfigurationFinder(folder).find_best_overall_usecase()
    assert best.gpus == (0, 1) and best.settings["device"] == "cuda:0,1"


@pytest.mark.parametrize("missing", [TIME, STATIONS, CPUS, MODEL, SUCCESS])
def test_missing_essential_columns_are_named(write_trials: Write, missing: str) -> None:
    header = [name for name in CANONICAL_CSV_HEADER if name != missing]
    with pytest.raises(InputError, match="line 1") as caught:
        cpu_finder(write_trials([ours(10, 2, 5.0)], header=header))
    assert missing in str(caught.value)


def test_other_columns_may_be_missing(write_trials: Write) -> None:
    header = ("Trial Number", MODEL, STATIONS, CPUS, TIME, SUCCESS)
    best = cpu_finder(write_trials([theirs(10, 2, 5.0)], header=header)).find_best_overall_usecase()
    assert (best.mode, best.ram_mb, best.seconds) == ("modelactor", None, 5.0)


def test_a_file_that_is_not_there_or_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cpu_test_results.csv is not there.*EvaluateSystem"):
        cpu_finder(tmp_path)
    (tmp_path / "cpu_test_results.csv").touch()
    with pytest.raises(InputError, match="is empty"):
        cpu_finder(tmp_path)


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.5, 0.7, 0.95])
@pytest.mark.parametrize("appended", [False, True])
def test_a_torn_line_costs_only_itself(write_trials: Write, keep: float, appended: bool) -> None:
    path = (
        write_trials([ours(10, 2, 5.0), ours(10, 1, 9.0), ours(10, 4, 3.0)])
        / "cpu_test_results.csv"
    )
    head, first, second, third = path.read_text().splitlines()
    torn = second[: int(len(second) * keep)]
    path.write_text(f"{head}\n{first}\n{torn}" + (f"\n{third}\n" if appended else ""))
    finder = cpu_finder(path.parent)
    best = finder.find_best_overall_usecase()
    assert best.cpus == (4 if appended else 2)
    assert (best.runner_up is not None) == appended
    assert len(finder.notes) == 1 and "line 3 cannot be read" in finder.notes[0]
    assert any("see notes" in note for note in best.notes)


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        (STATIONS, "many", "Number of Stations Used is 'many'"),
        (CPUS, "", "Number of CPUs"),
        (MODEL, " ", "Model Used is empty"),
        (TIME, "fast", "successful trial without Total Run time"),
        (TIME, "-1", "successful trial without Total Run time"),
        (SUCCESS, "perhaps", "Trial Success is 'perhaps'"),
        ("Settings (JSON)", "{mode", "not JSON"),
    ],
)
def test_unreadable_rows_are_noted(write_trials: Write, column: str, value: str, says: str) -> None:
    finder = cpu_finder(write_trials([ours(10, 2, 5.0), ours(99, 2, 1.0) | {column: value}]))
    assert finder.find_best_overall_usecase().stations == 10
    assert len(finder.notes) == 1
    assert "line 3 cannot be used" in finder.notes[0] and says in finder.notes[0]


def test_messages_with_line_breaks_and_repeated_headers(write_trials: Write) -> None:
    rows = [failed(50) | {"Error Message": 'a, "b"\nc'}, ours(10, 2, 5.0)]
    rows.append({name: name for name in CANONICAL_CSV_HEADER})
    finder = cpu_finder(write_trials(rows))
    assert finder.find_best_overall_usecase().trial.line == 4
    assert finder.notes == ("cpu_test_results.csv, line 5: the header again, left out",)


# ------------------------------------------------------------------------------ files and answers


def read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    return list(reader.fieldnames or ()), rows


def test_files_of_the_finders(write_trials: Write) -> None:
    rows = [
        ours(100, 2, 9.0),
        ours(100, 2, 8.0, workers=1),
        ours(100, 4, 5.0),
        ours(50, 2, 1.0),
        ours(100, 4, 0.1) | {SUCCESS: 0, "Configuration ID": "failed"},
        ours(40, 2, 0.7, model="PhaseNet/stead"),
    ]
    optimal, best = write_finder_files(write_trials(rows), "cpu")
    header, found = read_csv(optimal)
    assert tuple(header) == CANONICAL_CSV_HEADER
    assert [(row[MODEL], row[STATIONS], row[CPUS], row[TIME]) for row in found] == [
        ("EQTransformer/original", "50", "2", "1.0"),
        ("EQTransformer/original", "100", "2", "8.0"),
        ("EQTransformer/original", "100", "4", "5.0"),
        ("PhaseNet/stead", "40", "2", "0.7"),
    ]
    header, found = read_csv(best)
    assert header[6:8] == ["Number of Concurrent Station Tasks per Timechunk", CPUS]
    assert header[13] == "Error Message" and header[14] == "Mode"
    assert [row[TIME] for row in found] == ["5.0", "0.7"]
    assert found[0]["Runner-up Trial Number"] == "1"
    assert json.loads(found[0]["Settings (JSON)"])["workers"] == 4


def test_gpu_files_of_the_finders(write_trials: Write) -> None:
    rows = [
        ours(100, 2, 9.0, gpus=(0,), **{LIMIT: 500}),
        ours(100, 2, 8.0, gpus=(0,), workers=1, **{LIMIT: 900}),
        ours(100, 2, 7.0, gpus=(0, 1), **{LIMIT: 500}),
    ]
    optimal, best = write_finder_files(write_trials(rows, "gpu"), "gpu")
    assert len(read_csv(optimal)[1]) == 3
    header, found = read_csv(best)
    assert header[8:10] == [GPUS, LIMIT] and header[15] == "Error Message"
    assert [row[GPUS] for row in found] == ["[0, 1]"]


def test_files_without_a_successful_trial_keep_their_headers(write_trials: Write) -> None:
    optimal, best = write_finder_files(write_trials([failed(10)]), "cpu")
    assert read_csv(optimal) == (list(CANONICAL_CSV_HEADER), [])
    assert read_csv(best) == (list(BEST_COLUMNS["cpu"]), [])


def test_files_of_an_earlier_version_are_kept_readable(write_trials: Write) -> None:
    optimal, _ = write_finder_files(
        write_trials([theirs(10, 2, 5.0)], header=PUBLISHED_COLUMNS), "cpu"
    )
    header, found = read_csv(optimal)
    assert tuple(header) == CANONICAL_CSV_HEADER and found[0]["Stations Used"] == "['AAA', 'BBB']"


def test_names_of_the_folder(write_trials: Write, tmp_path: Path) -> None:
    folder = write_trials([ours(10, 2, 5.0)])
    log = tmp_path / "logs" / "finder.log"
    best = OptimalCPUConfigurationFinder(str(folder), log).find_best_overall_usecase()
    assert log.read_text().endswith(f"- INFO - {best}\n")
    old = OptimalCPUConfigurationFinder(eval_sys_results_dir=folder, log_file_path=log)
    assert old.find_best_overall_usecase().seconds == 5.0
    assert len(log.read_text().splitlines()) == 2
    with pytest.raises(SettingsError, match="same parameter"):
        OptimalCPUConfigurationFinder(folder, eval_sys_results_dir=folder)
    with pytest.raises(SettingsError, match="results_dir must be given"):
        OptimalGPUConfigurationFinder()
    with pytest.raises(OutputError, match="log_file_path"):
        OptimalCPUConfigurationFinder(folder, folder).find_best_overall_usecase()


def test_an_answer_as_text_json_and_parameters(write_trials: Write) -> None:
    best = cpu_finder(write_trials(LADDER)).find_best_overall_usecase()
    assert str(best).startswith(
        "EQTransformer/original: modelactor, 8 workers, 8 CPUs, torch, batch 64; "
        "100 stations x 10 min took 4 s (3.96 s to 4.04 s), 6,000 MB of memory "
        "[measured; cpu_test_results.csv, line 5]. "
        "Next is modelactor, 4 workers, 4 CPUs, torch, batch 64 with 6 s (+50.0 %)"
    )
    plain = json.loads(best.to_json())
    assert plain["settings"] == best.pick_settings()
    assert plain["runner_up"]["cpus"] == 4 and plain["machine"] == describe_machine()
    assert best.parameters() == {
        "model_type": "seisbench",
        "seisbench_parent_model": "EQTransformer",
        "seisbench_child_model": "original",
        "use_gpu": False,
        "mode": "modelactor",
        "number_of_concurrent_station_predictions": 8,
        "intra_threads": 1,
        "runtime": "torch",
        "batch_size": 64,
        "cpu_id_list": list(range(8)),
    }


def test_finders_need_nothing_heavy(write_trials: Write) -> None:
    folder = write_trials(LADDER)
    program = (
        "import sys; from eqcctpro import OptimalCPUConfigurationFinder as Finder\n"
        f"Finder({str(folder)!r}).find_best_overall_usecase()\n"
        "print({'torch', 'ray', 'pandas', 'pyarrow', 'seisbench', 'obspy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")
