// An HTTP function: `fetch` answers each request.

interface Env {
  greeting: string;
}

export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    return new Response(`${env.greeting} from TypeScript at ${pathname}\n`);
  },
} satisfies Handler<Env>;
