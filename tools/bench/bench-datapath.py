"""Draws datapath-ladder.png and datapath-rules.png from the report of make bench-datapath. Usage: REPORT FOLDER"""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plot


def caption(report):
    return "{} CPUs, kernel {}, load {}, {} repetitions; bars: median with its 95 % interval".format(
        report["cpus"], report["kernel"], report["loadAverage"].split()[0], report["repetitions"]
    )


def errors(values):
    low = [max(value["median"] - value["low"], 0) for value in values]
    high = [max(value["high"] - value["median"], 0) for value in values]
    return [low, high]


def draw_ladder(report, target):
    measures = [
        ("streamGbit", "stream, Gbit/s"),
        ("roundTripP50Microseconds", "round trip p50, µs"),
        ("connectsPerSecond", "connects per second"),
    ]
    figure, axes = plot.subplots(1, len(measures), figsize=(14, 4), sharey=True)
    names = [rung["name"] for rung in report["ladder"]]
    for axis, (key, title) in zip(axes, measures):
        values = [rung[key] for rung in report["ladder"]]
        axis.barh(names, [value["median"] for value in values], xerr=errors(values), color="#4477aa", ecolor="#222222")
        axis.set_title(title)
        axis.invert_yaxis()
    # Shared axes are turned once.
    if not axes[0].yaxis_inverted():
        axes[0].invert_yaxis()
    figure.supxlabel(caption(report), fontsize=8)
    figure.tight_layout()
    figure.savefig(target, dpi=110)


def draw_rules(report, target):
    figure, axes = plot.subplots(1, 2, figsize=(11, 4))
    names = sorted({rung["name"] for rung in report["scaling"]})
    for axis, (key, title) in zip(
        axes, [("connectsPerSecond", "connects per second"), ("roundTripP50Microseconds", "round trip p50, µs")]
    ):
        for name in names:
            rungs = [rung for rung in report["scaling"] if rung["name"] == name]
            values = [rung[key] for rung in rungs]
            axis.errorbar(
                [rung["rules"] for rung in rungs],
                [value["median"] for value in values],
                yerr=errors(values),
                marker="o",
                capsize=3,
                label=name,
            )
        axis.set_xscale("log")
        axis.set_ylim(bottom=0)
        axis.set_xlabel("rules")
        axis.set_title(title)
    axes[0].legend()
    figure.supxlabel(caption(report), fontsize=8)
    figure.tight_layout()
    figure.savefig(target, dpi=110)


def main(source, folder):
    with open(source, encoding="utf-8") as file:
        report = json.load(file)
    draw_ladder(report, folder + "/datapath-ladder.png")
    draw_rules(report, folder + "/datapath-rules.png")


main(sys.argv[1], sys.argv[2])
