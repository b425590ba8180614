#!/usr/bin/python3
"""Writes sections of a unified kernel image into files. Runs in the tools root.

pe-sections.py IMAGE FOLDER SECTION...      section .linux becomes FOLDER/linux
"""

import pathlib
import sys

import pefile

image, folder, *wanted = sys.argv[1:]
sections = {
    section.Name.rstrip(b"\0").decode(): section.get_data(length=section.Misc_VirtualSize)
    for section in pefile.PE(image, fast_load=True).sections
}
for name in wanted:
    if name not in sections:
        sys.exit(f"pe-sections.py: {image} has no section {name}, only {', '.join(sections)}")
    (pathlib.Path(folder) / name.removeprefix(".")).write_bytes(sections[name])
