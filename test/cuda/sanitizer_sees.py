#!/usr/bin/env python3
"""Whether a sanitizer ends a program: usage: sanitizer_sees.py WORDS PROGRAM [ARGUMENT...]

For modules with a seeded fault. The exit status is 0 if the program fails and its standard error has
the words.
"""
import subprocess
import sys

words, command = sys.argv[1], sys.argv[2:]
done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
seen = done.returncode != 0 and words in done.stderr
print(f"{'seen' if seen else 'NOT SEEN'}: {words}; exit status {done.returncode}")
for line in done.stderr.splitlines():
    if "ERROR:" in line or line.lstrip().startswith(("#0", "#1 ")):
        print(line)
if not seen:
    print(done.stdout + done.stderr)
sys.exit(not seen)
