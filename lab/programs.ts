// The test programs in C of one folder, compiled: static, so that they run in any image, and with every
// warning an error.
import { mkdirSync, readdirSync } from 'node:fs';
import { command } from './command.ts';

const OPTIONS = ['-O2', '-std=gnu11', '-static', '-s', '-Wall', '-Wextra', '-Werror'];

export interface ProgramsOptions {
  /** The folder of the C files; headers are no programs. */
  readonly sources: string;
  /** Gets the programs. */
  readonly target: string;
  /** Holds `libdrm/drm.h` and its like. */
  readonly drmHeaders: string;
}

/** Compiles every program and returns their names, which are those of the C files. */
export async function compilePrograms(options: ProgramsOptions): Promise<string[]> {
  const { sources, target, drmHeaders } = options;
  mkdirSync(target, { recursive: true });
  const files = readdirSync(sources).filter((name) => name.endsWith('.c'));
  const names = files.map((name) => name.slice(0, -'.c'.length));
  const compile = (name: string) => {
    const output = ['-o', `${target}/${name}`, `${sources}/${name}.c`];
    return command(['gcc', ...OPTIONS, '-isystem', drmHeaders, ...output], {
      context: `compiling the program ${name}`,
    });
  };
  await Promise.all(names.map(compile));
  return names;
}
