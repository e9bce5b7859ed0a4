// A page opened from disk may start no web worker, and the search runs in one. Here it runs in a
// hidden frame instead. Nothing else is changed, and a page that a server sends is left alone.
"use strict";
(() => {
  if (location.protocol !== "file:") return;
  const quoted = (text) => String(text).replace(/&/g, "&amp;").replace(/"/g, "&quot;");
  // Inside the frame: what a worker's script finds around it.
  const around = () => {
    self.postMessage = (data) => parent.postMessage(data, "*");
    self.importScripts = (...urls) =>
      urls.reduce(
        (before, url) =>
          before.then(
            () =>
              new Promise((done, failed) => {
                const script = document.createElement("script");
                script.src = url;
                script.onload = done;
                script.onerror = () => failed(new Error(`cannot load ${url}`));
                document.head.append(script);
              })
          ),
        Promise.resolve()
      );
  };
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = null;
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.title = "search";
      document.body.append(this.frame);
      this.heard = (event) => {
        if (event.source !== this.frame.contentWindow) return;
        const told = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(told);
        if (this.onmessage) this.onmessage(told);
      };
      addEventListener("message", this.heard);
      const inside = this.frame.contentDocument;
      const script = quoted(new URL(url, location.href));
      inside.open();
      inside.write(`<!doctype html><head><script>(${around})()</script><script src="${script}"></script>`);
      inside.close();
    }
    postMessage(data) {
      // What is posted before the frame has its script would be lost.
      const send = () => {
        const to = this.frame.contentWindow;
        to.dispatchEvent(new to.MessageEvent("message", { data, source: window }));
      };
      if (this.frame.contentDocument.readyState === "complete") send();
      else this.frame.contentWindow.addEventListener("load", send, { once: true });
    }
    terminate() {
      removeEventListener("message", this.heard);
      this.frame.remove();
    }
  };
})();
