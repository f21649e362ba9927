#!/usr/bin/env python3
"""Turn a drive log of G-NetTrack (as in the Irish 5G data set) into a link trace: seconds,mbit_s, one row a second.

    python3 bench/link_trace.py 5G-production-dataset.zip                          lists the logs in it
    python3 bench/link_trace.py 5G-production-dataset.zip Driving/B_2020.02.14 > link.csv
    python3 bench/link_trace.py log.csv --direction up --first 60 --seconds 300 > link.csv

What counts is the rate that somebody used, which is near what the link had only while a download ran: take the logs
of Download, not those of Netflix. The log has about one sample a second: samples of the same second are averaged,
seconds without one repeat the second before. Rates below --least become it, since a trace has no second that
nothing can pass.
"""
import argparse
import csv
import datetime
import io
import math
import os
import sys
import zipfile

COLUMNS = {"down": "DL_bitrate", "up": "UL_bitrate"}  # kbit/s


def fail(message, code):
    print(f"edgepipe: error: {message}", file=sys.stderr)
    sys.exit(code)


def logs_of(archive):
    """The logs in an archive, without the shadow files that a Mac leaves."""
    return sorted(name for name in archive.namelist() if name.endswith(".csv") and not name.startswith("__MACOSX"))


def read_log(path, part):
    """The text of the log; or none, after the names in the archive were listed."""
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            return file.read()
    with zipfile.ZipFile(path) as archive:
        found = [name for name in logs_of(archive) if not part or part in name]
        if part and len(found) == 1:
            return archive.read(found[0])
        print("\n".join(found), file=sys.stderr if part else sys.stdout)
        if part:
            fail(f"'{part}' fits {len(found)} logs in '{path}'; one is needed", 2)
    return None


def samples_of(text, path, column):
    """(seconds since the first row, Mbit/s) of every row that has a rate."""
    start, samples = None, []
    reader = csv.DictReader(io.StringIO(text.decode("utf-8", "replace")))
    for column_needed in ("Timestamp", column):
        if column_needed not in (reader.fieldnames or ()):
            fail(f"'{path}' has no column {column_needed}", 65)
    for row in reader:
        try:
            when = datetime.datetime.strptime(row["Timestamp"], "%Y.%m.%d_%H.%M.%S")
            rate = float(row[column]) / 1000
        except (TypeError, ValueError):
            continue  # '-': not measured, or a row cut off
        if not math.isfinite(rate):
            continue
        start = start or when
        samples.append((int((when - start).total_seconds()), rate))
    return samples


def trace_of(samples, least):
    """One rate a second, from the first sample to the last."""
    rates = {}
    for second, rate in samples:
        rates.setdefault(second, []).append(rate)
    trace = []
    for second in range(max(rates) + 1):
        known = rates.get(second)
        trace.append(max(sum(known) / len(known), least) if known else trace[-1])
    return trace


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", help="a log, or a zip archive with logs")
    parser.add_argument("part", nargs="?", help="of the name of one log in the archive")
    parser.add_argument("--direction", choices=COLUMNS, default="down")
    parser.add_argument("--first", type=int, default=0, metavar="S", help="leave out the seconds before this one")
    parser.add_argument("--seconds", type=int, metavar="N", help="so many seconds at most")
    parser.add_argument("--least", type=float, default=0.1, metavar="MBIT", help="least rate (default: 0.1)")
    options = parser.parse_args()
    if options.first < 0 or (options.seconds is not None and options.seconds < 1) or not options.least > 0:
        parser.error("--first is 0 or more; --seconds 1 or more; --least above 0")
    try:
        text = read_log(options.log, options.part)
    except (OSError, zipfile.BadZipFile) as problem:
        fail(f"cannot read '{options.log}': {problem}", 66)
    if text is None:
        return
    samples = samples_of(text, options.log, COLUMNS[options.direction])
    end = None if options.seconds is None else options.first + options.seconds
    trace = trace_of(samples, options.least)[options.first:end] if samples else []
    if not trace:
        fail(f"no rates in '{options.log}' after second {options.first}", 65)
    print(f"# {' '.join(filter(None, (os.path.basename(options.log), options.part)))}, {options.direction}: mean "
          f"{sum(trace) / len(trace):.3f} Mbit/s, {min(trace):.3f} to {max(trace):.3f}")
    print("seconds,mbit_s")
    for second, rate in enumerate(trace):
        print(f"{second},{rate:.6g}")


if __name__ == "__main__":
    main()
