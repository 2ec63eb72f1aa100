// The services that a team has before it moves to keyturn: jsonwebtoken, one shared secret, no kid.
//
//   node old.mjs sign SECRETFILE COUNT PREFIX   prints COUNT tokens of an hour, one in a line
//   node old.mjs serve SECRETFILE               prints its port; POST / has one token in a line, and
//                                               the answer says which were refused
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import jwt from "jsonwebtoken";

const [mode, file, count, prefix] = process.argv.slice(2);
const secret = readFileSync(file, "utf8").trim();
const rules = { issuer: "https://auth.example", audience: "api" };

if (mode === "sign") {
  const tokens = [];
  for (let i = 0; i < Number(count); i++) {
    tokens.push(jwt.sign({ sub: `${prefix}${i}` }, secret, { ...rules, expiresIn: "1h" }));
  }
  process.stdout.write(tokens.join("\n") + "\n");
} else {
  const server = createServer((req, res) => {
    let body = "";
    req.on("data", (chunk) => { body += chunk; });
    req.on("end", () => {
      let refused = 0, first = "";
      for (const token of body.split("\n").filter(Boolean)) {
        try {
          jwt.verify(token, secret, { ...rules, algorithms: ["HS256"] });
        } catch (err) {
          refused++;
          first ||= err.message;
        }
      }
      res.end(JSON.stringify({ refused, first }));
    });
  });
  server.listen(0, "127.0.0.1", () => console.log(server.address().port));
  process.stdin.resume();
  process.stdin.on("end", () => process.exit(0)); // with the test
}
