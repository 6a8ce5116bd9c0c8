// The search page: its state is in the address, and all that the service says is inserted as text, never as HTML.

const PAGE = 24; // results at a time
const MOST_RESULTS = 96;
const SHOWN_LABELS = 100; // in the list of labels; more are found by typing
const MOST_RETRIES = 3; // of a busy service, before the user has to ask for it
const TOKEN = "dagnn-token"; // of sessionStorage

const $ = (id) => document.getElementById(id);
const images = new Map(); // number in history.state -> File: an address cannot hold an image
const narrow = matchMedia("(max-width: 720px)");

let state = readAddress();
let index = null; // what GET /index says
let running = new AbortController();
let retry = 0; // timer
let blobs = []; // addresses of thumbnails that were fetched with a token

// ---- state and address -------------------------------------------------------------------------------------------

function readAddress() {
  const query = new URLSearchParams(location.search);
  return {
    text: query.get("q") ?? "",
    like: query.get("like") ?? "",
    image: query.get("image") ?? "", // its name
    imageNumber: history.state?.imageNumber ?? 0,
    target: query.get("target") === "text" ? "text" : "image",
    include: query.getAll("with"),
    exclude: query.getAll("without"),
    filters: query.getAll("filter"),
    k: Math.min(Math.max(Number.parseInt(query.get("k"), 10) || PAGE, 1), MOST_RESULTS),
  };
}

function address() {
  const query = new URLSearchParams();
  if (state.text) query.set("q", state.text);
  if (state.like) query.set("like", state.like);
  if (state.image) query.set("image", state.image);
  if (state.target === "text") query.set("target", "text");
  for (const name of state.include) query.append("with", name);
  for (const name of state.exclude) query.append("without", name);
  for (const filter of state.filters) query.append("filter", filter);
  if (state.k !== PAGE) query.set("k", state.k);
  return query.size ? `?${query}` : location.pathname;
}

/** Change the state, remember it in the history, and search. */
function go(changes, { focusResults = false } = {}) {
  state = { ...state, k: PAGE, ...changes };
  history.pushState({ imageNumber: state.imageNumber }, "", address());
  if (focusResults) $("results").focus({ preventScroll: true }); // what was pressed goes away
  return update();
}

const byText = (text) => ({ text, like: "", image: "", imageNumber: 0 });
const byItem = (id) => ({ text: "", like: id, image: "", imageNumber: 0 });

function byImage(file) {
  if (index && !index.takes.image) return;
  const number = Date.now(); // not that of an entry of the history from before a reload
  images.set(number, file);
  go({ text: "", like: "", image: file.name || "image", imageNumber: number });
}

function update() {
  showQuery();
  showFilters();
  return search();
}

// ---- the service -------------------------------------------------------------------------------------------------

class ServiceError extends Error {
  constructor(status, what, remedy, wait = 0) {
    super(what);
    Object.assign(this, { status, remedy, wait });
  }
}

/** Ask the service; `path` is relative, so that the page also works below a prefix of a proxy. */
async function ask(path, options = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0, "The service does not answer", "check that dagnn serve is running and try again");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  const wait = Number(response.headers.get("Retry-After")) || 0;
  throw new ServiceError(
    response.status,
    said.error ?? `The service answered ${response.status}`,
    said.remedy ?? "",
    wait,
  );
}

const quoted = (label) => `"${label}"`;
const labelExpression = () =>
  [...state.include.map(quoted), ...state.exclude.map((label) => `not ${quoted(label)}`)].join(" and ");

const asked = () => Math.min(state.k, index.max_k); // results

async function request(signal) {
  const common = { target: state.target, k: asked(), labels: labelExpression(), filters: state.filters };
  if (state.image) {
    const query = new URLSearchParams({ target: common.target, k: common.k, labels: common.labels });
    for (const filter of common.filters) query.append("filters", filter);
    const body = images.get(state.imageNumber);
    return ask(`search/image?${query}`, {
      method: "POST",
      body,
      signal,
      headers: { "Content-Type": "application/octet-stream" },
    });
  }
  const body = JSON.stringify({ ...common, ...(state.like ? { id: state.like } : { text: state.text }) });
  return ask("search", { method: "POST", body, signal, headers: { "Content-Type": "application/json" } });
}

async function readIndex() {
  index = await (await ask("index")).json();
  const { name, version, digest } = index.model;
  $("about").textContent = `${count(index.items, "item")} · model ${name ? `${name} ${version}` : digest.slice(0, 12)}`;
  $("about").title = `model ${digest}\nindex ${index.digest}`;
  for (const radio of document.querySelectorAll("[name=target]")) radio.disabled = index[`${radio.value}s`] === 0;
  $("file").disabled = !index.takes.image;
  $("file").parentElement.hidden = !index.takes.image;
  if (!index.takes.text) $("text").placeholder = "Id of an item: the model takes precomputed vectors, not texts";
  else if (!index.takes.image) $("text").placeholder = "Describe what to find";
  if (!index.images) state.target = "text";
  if (!index.texts) state.target = "image";
  showTarget();
  makeFilters();
  showFilters();
}

async function search(retries = 0) {
  running.abort();
  clearTimeout(retry);
  running = new AbortController();
  const { signal } = running;
  if (index && !state.text && !state.like && !state.image) return showStart();
  if (index && state.image && !images.has(state.imageNumber)) {
    $("results").ariaBusy = "false";
    return showMessage("The image of this search is gone", "an address does not hold it: choose the image again");
  }
  $("results").ariaBusy = "true";
  try {
    if (!index) {
      await readIndex(); // what is being typed meanwhile stays
      return search(retries);
    }
    const answer = await (await request(signal)).json();
    if (answer.index !== index.digest) await readIndex(); // another model serves since
    if (!signal.aborted) showAnswer(answer);
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) return;
    showError(error, retries);
  } finally {
    if (!signal.aborted) $("results").ariaBusy = "false";
  }
}

// ---- elements ----------------------------------------------------------------------------------------------------

/** Make an element; children that are strings become text. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const button = (text, onclick, properties = {}) => make("button", { type: "button", onclick, ...properties }, text);
const words = (text, properties = {}) => make("span", { dir: "auto", ...properties }, text); // either way of writing
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
const ranked = (labels) => Object.entries(labels).sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1)); // by number
const percent = (probability) => `${Math.round(100 * probability)} %`;

/** An image that the service has; with a token it is fetched, since `src` sends none. */
function showThumbnail(path, alt) {
  const image = make("img", { alt, loading: "lazy", decoding: "async", draggable: false });
  const relative = path.replace(/^\/+/, "");
  if (!sessionStorage.getItem(TOKEN)) image.src = relative;
  else {
    ask(relative)
      .then((response) => response.blob())
      .then(
        (blob) => {
          blobs.push((image.src = URL.createObjectURL(blob)));
        },
        () => image.remove(),
      );
  }
  return image;
}

// ---- query and filters -------------------------------------------------------------------------------------------

function showTarget() {
  document.querySelector(`[name=target][value=${state.target}]`).checked = true;
}

async function showQuery() {
  const { text, like, image, imageNumber } = state;
  $("text").value = text;
  showTarget();
  document.title = [text || like || image, "DAGNN search"].filter(Boolean).join(" - ");
  const example = $("example");
  example.hidden = !like && !image;
  if (example.hidden) return example.replaceChildren();
  const remove = button("×", () => go(byText("")), { ariaLabel: "Remove the example" });
  example.replaceChildren(words(like ? `like ${like}` : image), remove);
  if (images.has(imageNumber)) {
    const source = URL.createObjectURL(images.get(imageNumber));
    example.prepend(make("img", { alt: "", src: source, onload: () => URL.revokeObjectURL(source) }));
  } else if (like) {
    const item = await ask(`items/${encodeURIComponent(like)}`)
      .then((response) => response.json())
      .catch(() => null);
    if (item?.thumbnail && state.like === like) example.prepend(showThumbnail(item.thumbnail, ""));
  }
}

const without = (list, entry) => list.filter((other) => other !== entry);
const toggled = (list, entry) => (list.includes(entry) ? without(list, entry) : [...list, entry]);

/** The rows of the label filter, each once for an index, so that a press keeps the focus. */
function makeFilters() {
  const rows = ranked(index.labels).map(([name, number]) => {
    const disabled = name.includes('"'); // no label expression can name it
    const include = button(
      words(name),
      () => go({ include: toggled(state.include, name), exclude: without(state.exclude, name) }),
      { className: "name", disabled },
    );
    include.append(make("span", { className: "count" }, number.toLocaleString("en")));
    const exclude = button(
      "not",
      () => go({ exclude: toggled(state.exclude, name), include: without(state.include, name) }),
      { className: "not", disabled, ariaLabel: `not ${name}` },
    );
    const row = make("li", {}, include, exclude);
    row.dataset.name = name;
    return row;
  });
  $("labels").replaceChildren(...rows);
  $("labels-section").hidden = !rows.length;
  $("find-label").hidden = rows.length <= 12;
  $("column").replaceChildren(...index.columns.map((name) => make("option", { value: name }, name)));
  $("columns").hidden = !index.columns.length;
  $("filters").hidden = !rows.length && !index.columns.length;
}

function showFilters() {
  const wanted = $("find-label").value.trim().toLowerCase();
  let shown = 0;
  let left = 0;
  for (const row of $("labels").children) {
    const { name } = row.dataset;
    const [include, exclude] = [state.include.includes(name), state.exclude.includes(name)];
    const fits = name.toLowerCase().includes(wanted) || include || exclude;
    row.hidden = !fits || (shown >= SHOWN_LABELS && !include && !exclude);
    if (fits) row.hidden ? left++ : shown++;
    row.firstChild.ariaPressed = include;
    row.lastChild.ariaPressed = exclude;
  }
  $("labels-note").hidden = shown > 0 && left === 0;
  $("labels-note").textContent = left ? `${left} more: type to find them` : "no such label";
  const remove = (changes) => () => go(changes, { focusResults: true });
  const chips = [
    ...state.include.map((name) => [name, { include: without(state.include, name) }]),
    ...state.exclude.map((name) => [`not ${name}`, { exclude: without(state.exclude, name) }]),
    ...state.filters.map((filter) => [filter.replace("=", " = "), { filters: without(state.filters, filter) }]),
  ];
  $("active").replaceChildren(
    ...chips.map(([text, changes]) =>
      make(
        "li",
        { className: "chip" },
        words(text),
        button("×", remove(changes), { ariaLabel: `Remove the filter ${text}` }),
      ),
    ),
  );
}

// ---- results -----------------------------------------------------------------------------------------------------

function clear() {
  for (const blob of blobs.splice(0)) URL.revokeObjectURL(blob);
  $("hits").replaceChildren();
  $("notice").hidden = true;
  $("notice").role = null;
  $("notice").className = "";
  $("notice").replaceChildren();
  $("more").hidden = true;
}

function showNotice(...children) {
  $("notice").replaceChildren(...children);
  $("notice").hidden = false;
}

/** Labels as buttons, each of which searches for it. */
function labelButtons(names) {
  return make(
    "ul",
    { className: "suggestions" },
    ...names.map(([name, note]) =>
      make(
        "li",
        {},
        button(words(name), () => go(byText(name), { focusResults: true })),
        make("span", { className: "count" }, note),
      ),
    ),
  );
}

function showStart() {
  clear();
  $("summary").textContent = "";
  $("results").ariaBusy = "false";
  if (!index.takes.text) return;
  const common = ranked(index.labels).slice(0, 12);
  if (common.length) {
    $("summary").textContent = "Search by text, or start from a label";
    showNotice(labelButtons(common.map(([name, number]) => [name, number.toLocaleString("en")])));
  }
}

function showAnswer(answer) {
  clear();
  const { hits, target } = answer;
  const subject = state.text ? `“${state.text}”` : state.like || state.image;
  const query = `${state.like ? "like" : "for"} ${subject}`;
  const found = hits.length < asked() ? count(hits.length, target) : `The ${hits.length} best ${target}s`;
  const filtered = state.include.length + state.exclude.length + state.filters.length > 0;
  const near = ranked(answer.nearest_labels).map(([name, probability]) => [name, percent(probability)]);
  if (!hits.length) {
    $("summary").textContent = `No ${target} ${query}`;
    showNotice(
      make("p", {}, filtered ? "No item fits the filters." : `The index has no ${target} to find.`),
      filtered
        ? button("Remove the filters", () => go({ include: [], exclude: [], filters: [] }, { focusResults: true }))
        : "",
    );
  } else if (answer.relevant === false) {
    $("summary").textContent = `Nothing relevant was found for ${subject}`;
    showNotice(
      make(
        "p",
        {},
        `No result ${filtered ? "that fits the filters " : ""}is likely to share a label with the query.`,
        ...(near.length ? [" The nearest labels:"] : []),
      ),
      ...(near.length && index.takes.text ? [labelButtons(near)] : []),
      make("p", {}, `Below are the ${count(hits.length, target)} that come closest.`),
    );
    $("notice").className = "warning";
  } else {
    $("summary").textContent = `${found} ${query}`;
  }
  $("hits").className = target === "text" ? "texts" : "grid";
  $("hits").classList.toggle("doubtful", answer.relevant === false);
  $("hits").append(...hits.map((hit) => card(hit, target)));
  $("more").hidden = hits.length < asked() || state.k >= Math.min(MOST_RESULTS, index.max_k);
}

function card(hit, target) {
  const thumbnail = hit.thumbnail
    ? showThumbnail(hit.thumbnail, `Image ${hit.id}`)
    : target === "image"
      ? make("p", { className: "missing" }, "no thumbnail")
      : null;
  const scores = make(
    "p",
    { className: "scores" },
    make("span", { title: "cosine of query and item" }, `score ${hit.score.toFixed(3)}`),
    ...(hit.probability === null
      ? []
      : [
          make(
            "span",
            { title: "probability that query and item share a label" },
            `relevant ${percent(hit.probability)}`,
          ),
        ]),
  );
  const reasons = ranked(hit.reasons).map(([name, share]) => [name, percent(share), !hit.labels.includes(name)]);
  const others = hit.labels.filter((name) => !Object.hasOwn(hit.reasons, name)).map((name) => [name]);
  const columns = Object.entries(hit.columns)
    .map(([name, value]) => `${name} ${value}`)
    .join(", ");
  const like = button("More like this", () => go(byItem(hit.id), { focusResults: true }), {
    className: "like",
    title: columns && `${hit.id}\n${columns}`,
  });
  like.setAttribute("aria-describedby", `id-${hit.rank}`);
  return make(
    "li",
    {},
    thumbnail,
    make(
      "div",
      {},
      scores,
      hit.text ? make("p", { className: "text", dir: "auto" }, hit.text) : null,
      reasons.length ? tags("because of", reasons) : null,
      others.length ? tags(reasons.length ? "also" : "labels", others) : null,
      make("p", { className: "foot" }, words(hit.id, { id: `id-${hit.rank}`, className: "id", title: hit.id }), like),
    ),
  );
}

/** Labels in a row: those that carry the score, each with its share, or the others. */
function tags(title, names) {
  const tag = ([name, share, isGuess]) =>
    make(
      "span",
      isGuess ? { className: "tag guess", title: "the model's word: not a label of the item" } : { className: "tag" },
      words(name),
      share ? make("span", { className: "count" }, ` ${share}`) : "",
      isGuess ? make("span", { className: "hidden" }, " (not a label of the item)") : "",
    );
  return make(
    "p",
    { className: `tags ${title.split(" ")[0]}` },
    make("span", { className: "title" }, title),
    ...names.flatMap((each) => [" ", tag(each)]),
  );
}

// ---- messages ----------------------------------------------------------------------------------------------------

/** Show what went wrong, and what to do about it. */
function showMessage(what, remedy, ...more) {
  clear();
  $("summary").textContent = sentence(what);
  if (!remedy && !more.length) return;
  showNotice(...(remedy ? [make("p", {}, sentence(remedy))] : []), ...more);
  $("notice").role = "alert";
  $("notice").className = "warning";
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function showError(error, retries) {
  if (!(error instanceof ServiceError)) throw error;
  if (error.status === 401) return askForToken();
  const again = button("Try again", () => search());
  if ([429, 503].includes(error.status) && error.wait && retries < MOST_RETRIES) {
    showMessage(error.message, `The page tries again in ${error.wait} s.`, again);
    retry = setTimeout(() => search(retries + 1), 1000 * error.wait);
  } else if (error.status === 0 || error.status >= 500 || error.status === 429) {
    showMessage(error.message, error.remedy, again);
  } else {
    showMessage(error.message, error.remedy);
  }
}

function askForToken() {
  const known = sessionStorage.getItem(TOKEN);
  const field = make("input", {
    id: "token",
    type: "password",
    required: true,
    autocomplete: "off",
    pattern: "[\\x21-\\x7e]+",
    title: "printable characters without spaces",
  });
  const form = make(
    "form",
    { id: "token-form" },
    make("label", { htmlFor: "token" }, "Token"),
    field,
    make("button", {}, "Use it"),
  );
  form.onsubmit = (event) => {
    event.preventDefault();
    sessionStorage.setItem(TOKEN, field.value);
    search();
  };
  showMessage(
    known ? "The service does not accept the token" : "The service needs a token",
    "It is kept until this tab is closed.",
    form,
  );
  field.focus();
}

// ---- events ------------------------------------------------------------------------------------------------------

$("query").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (text) go(index?.takes.text === false ? byItem(text) : byText(text));
  else if (!state.like && !state.image) $("text").focus();
};
for (const radio of document.querySelectorAll("[name=target]")) radio.onchange = () => go({ target: radio.value });
$("file").onchange = () => {
  if ($("file").files.length) byImage($("file").files[0]);
  $("file").value = ""; // the same file can be chosen again
};
$("find-label").oninput = showFilters;
$("columns").onsubmit = (event) => {
  event.preventDefault();
  const filter = `${$("column").value}=${$("value").value}`;
  $("value").value = "";
  if (!state.filters.includes(filter)) go({ filters: [...state.filters, filter] });
};
$("more").onclick = async () => {
  const shown = $("hits").children.length;
  await go({ k: state.k + PAGE });
  $("hits").children[shown]?.querySelector(".like").focus();
};
onpopstate = () => {
  state = readAddress();
  update();
};

document.onpaste = (event) => {
  const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
  if (file) {
    event.preventDefault();
    byImage(file);
  }
};
const dragsFile = (event) => event.dataTransfer.types.includes("Files");
ondragover = (event) => {
  if (!dragsFile(event)) return;
  event.preventDefault();
  $("drop").hidden = false;
};
ondragleave = (event) => {
  if (!event.relatedTarget) $("drop").hidden = true;
};
ondrop = (event) => {
  $("drop").hidden = true;
  if (!dragsFile(event)) return;
  event.preventDefault();
  byImage(event.dataTransfer.files[0]);
};

/** Arrow keys move over the results, as they are laid out. */
$("hits").onkeydown = (event) => {
  const buttons = [...$("hits").querySelectorAll(".like")];
  const here = buttons.indexOf(event.target);
  if (here < 0) return;
  const top = (element) => element.closest("li").offsetTop;
  const columns = buttons.filter((each) => top(each) === top(buttons[0])).length;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  const next = event.key === "Home" ? 0 : event.key === "End" ? buttons.length - 1 : here + (steps[event.key] ?? NaN);
  if (!buttons[next]) return;
  event.preventDefault();
  buttons[next].focus();
};

const fold = () => ($("filters").open = !narrow.matches);
narrow.onchange = fold;
fold();
update();
if (!state.text && !state.like && !state.image) $("text").focus();
