// The command line itself, for guests: they get programs of this folder.
import '../../src/cli/main.ts';
