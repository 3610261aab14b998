// A handler as componentize-js runs it, on an engine of its own: nothing here knows Marram.
addEventListener('fetch', (event) => {
  const { pathname } = new URL(event.request.url);
  event.respondWith(new Response(`Hello from componentize-js at ${pathname}\n`, { headers: { 'content-type': 'text/plain' } }));
});
