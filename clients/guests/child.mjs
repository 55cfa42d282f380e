// Starts a command as Node's child_process does, with pipes, which are pairs of Unix sockets. Arguments: the command.
import { spawn } from "node:child_process";

const [program, ...words] = process.argv.slice(2);
const child = spawn(program, words, { stdio: ["pipe", "pipe", "pipe"] });
let out = "";
let err = "";
child.stdout.on("data", (part) => (out += part));
child.stderr.on("data", (part) => (err += part));
child.on("close", (code, signal) => console.log(JSON.stringify({ code, signal, out, err })));
child.stdin.end("through a pair of sockets\n");
