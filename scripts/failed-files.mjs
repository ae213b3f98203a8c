// A reporter for Node's test runner: the files in which a test failed, one path a line.
export default async function* failedFiles(source) {
  const files = new Set();
  for await (const { type, data } of source) {
    if (type === 'test:fail' && data.file !== undefined) files.add(data.file);
  }
  yield [...files].join('\n');
}
