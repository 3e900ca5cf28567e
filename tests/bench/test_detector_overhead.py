"""The bench runs whole at a small size."""

from bench.detector_overhead import main


def test_each_format_and_size_has_its_line(capsys):
    main(["--heights", "64", "90", "--runs", "2", "--threads", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("yunet alone, 1 threads: ")
    assert [line.split(":")[0] for line in lines[1:]] == [
        "i420 64p",
        "i420 90p",
        "bgr 64p",
        "bgr 90p",
    ]
    assert all(line.endswith("ms beyond it") for line in lines[1:])
