// A reporter for Node's test runner, in the process of a run: the scenarios in which a test failed, one name a line. At the
// first failure of each it has the lab keep what explains it, while the machine still has that.
import { scenarioName } from '../dist/lab/attached.js';
import { reportFailure } from '../dist/lab/supervisor-protocol.js';

export default async function* failures(source) {
  const reported = new Set();
  for await (const { type, data } of source) {
    if (type !== 'test:fail' || data.file === undefined) continue;
    const scenario = scenarioName(data.file);
    if (reported.has(scenario)) continue;
    reported.add(scenario);
    yield `${scenario}\n`;
    await reportFailure(scenario).catch((error) => {
      process.stderr.write(`nothing explains the failure of ${scenario}: ${error.message}\n`);
    });
  }
}
