// The same file runs in Marram and in workerd.
export default {
  fetch() {
    return new Response("Hello from Marram", { headers: { "content-type": "text/plain" } });
  },
};
