// An HTTP function: `fetch` answers each request.

export default {
  async fetch(request, env, ctx) {
    const { pathname } = new URL(request.url);
    return new Response(`Hello from JavaScript at ${pathname}\n`);
  },
};
