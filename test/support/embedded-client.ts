// A process that joins a data folder, prints the URL, and stays until it is told to leave or
// killed.
import { joinEmbedded } from "../../mixins/postgres/embedded.ts";

const embedded = await joinEmbedded(process.argv[2]!);
process.stdout.write(`${embedded.url}\n`);
process.stdin.once("data", () => {
  void embedded.leave().then(() => process.exit(0)); // A rejection ends the process with 1.
});
