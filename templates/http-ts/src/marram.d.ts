// What a function is given besides the Web's own types. `Env` is what its manifest has under `config` and `secrets`.

interface ExecutionContext {
  /** Work that goes on after the answer, within the function's deadline. */
  waitUntil(promise: Promise<unknown>): void;
}

interface Handler<Env = Record<string, string>> {
  fetch(request: Request, env: Env, ctx: ExecutionContext): Response | Promise<Response>;
}
