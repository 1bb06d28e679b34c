// The form that asks for a viewer's credentials, where the server wants them.

import { ApiError, post } from "../data/api.js";
import { make, setText } from "../draw/dom.js";
import { word } from "../words.js";

export class Login {
  constructor({ onSignedIn }) {
    const user = make("input", { name: "user", autocomplete: "username", required: true, autocapitalize: "none", spellcheck: "false" });
    const password = make("input", { name: "password", type: "password", autocomplete: "current-password", required: true });
    const error = make("p.form-error", { role: "alert" });
    const button = make("button.primary", { type: "submit" }, word("signIn"));
    const submit = async (event) => {
      event.preventDefault();
      button.disabled = true;
      setText(error, "");
      try {
        await post("login", { user: user.value, password: password.value });
        onSignedIn();
      } catch (problem) {
        if (!(problem instanceof ApiError)) throw problem;
        setText(error, problem.status === 401 ? word("signInFailed") : problem.message);
        password.value = "";
        password.focus();
      } finally {
        button.disabled = false;
      }
    };
    this.element = make("form.login.panel", { onsubmit: submit, "aria-labelledby": "heading-login" },
      make("h1", { id: "heading-login", tabindex: "-1" }, word("signIn")), make("p.muted", {}, word("viewerOnly")),
      make("label", {}, word("user"), user), make("label", {}, word("password"), password), error, button);
  }

  draw() {}

  end() {}
}
